//! Ids inside a container and those that its files have outside.

/// One range of a container's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside, as this process sees it.
    pub outside: u32,
    /// How many.
    pub length: u32,
}

/// What the kernel shows for an id that a user namespace does not have (`/proc/sys/kernel/overflowuid`).
const OVERFLOW: u32 = 65534;

/// A container's ids and those outside. Without ranges each id is itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    /// Of users.
    pub uids: Vec<IdRange>,
    /// Of groups.
    pub gids: Vec<IdRange>,
}

impl IdMap {
    /// True where ids are the same inside and outside.
    pub fn is_identity(&self) -> bool {
        self.uids.iter().chain(&self.gids).all(|range| range.inside == range.outside)
    }

    /// The owner as the container sees it; one that it does not have is nobody.
    pub fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let find = |ranges: &[IdRange], id| match ranges {
            [] => id,
            _ => shift(ranges, id, |range| (range.outside, range.inside)).unwrap_or(OVERFLOW),
        };
        (find(&self.uids, uid), find(&self.gids, gid))
    }

    /// The owner as this process sees it; `None` for one that the container does not have.
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let find = |ranges: &[IdRange], id| match ranges {
            [] => Some(id),
            _ => shift(ranges, id, |range| (range.inside, range.outside)),
        };
        Some((find(&self.uids, uid)?, find(&self.gids, gid)?))
    }
}

fn shift(ranges: &[IdRange], id: u32, ends: impl Fn(&IdRange) -> (u32, u32)) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let (from, to) = ends(range);
        let offset = id.checked_sub(from).filter(|offset| *offset < range.length)?;
        to.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_both_ways() {
        let range = |inside, outside, length| IdRange { inside, outside, length };
        let map =
            IdMap { uids: vec![range(0, 1000, 10), range(10, 5000, 5)], gids: vec![range(0, 2000, 10)] };
        assert_eq!(map.outside(3, 4), Some((1003, 2004)));
        assert_eq!(map.outside(12, 0), Some((5002, 2000)));
        assert_eq!(map.outside(15, 0), None);
        assert_eq!(map.inside(5004, 2009), (14, 9));
        assert_eq!(map.inside(0, 2010), (OVERFLOW, OVERFLOW));
        assert!(!map.is_identity() && IdMap::default().is_identity());
        assert_eq!(IdMap::default().outside(7, 8), Some((7, 8)));
    }
}
