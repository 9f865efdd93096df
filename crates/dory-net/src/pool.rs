//! The subnets that networks are given when none is asked for, and the choice of one that collides with nothing.
//!
//! A nested engine lives in a container of an outer one: the outer subnet is on its `eth0`, so the same pool gives the
//! inner engine the next subnet, at every depth.

use std::net::Ipv4Addr;

use crate::address::Ipv4Subnet;

/// Docker's default pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 to 192.168.240.0/20.
fn default_pools() -> impl Iterator<Item = Ipv4Subnet> {
    let large = (17..32).map(|second| Ipv4Subnet::containing(Ipv4Addr::new(172, second, 0, 0), 16));
    let small =
        (0..=240).step_by(16).map(|third| Ipv4Subnet::containing(Ipv4Addr::new(192, 168, third, 0), 20));
    large.chain(small)
}

/// The first subnet of the pools that overlaps none of `in_use`. A default route overlaps everything and so is left out.
pub(crate) fn first_free(in_use: &[Ipv4Subnet]) -> Option<Ipv4Subnet> {
    default_pools()
        .find(|candidate| !in_use.iter().any(|used| used.prefix() > 0 && used.overlaps(*candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_as_docker_does_and_never_what_is_in_use() {
        let default = "0.0.0.0/0";
        for (in_use, expected) in [
            (vec![default], "172.17.0.0/16"),
            (vec![default, "172.17.0.0/16"], "172.18.0.0/16"),
            (vec!["172.18.0.0/16"], "172.17.0.0/16"),
            (vec!["172.17.42.0/24", "172.18.0.1/32"], "172.19.0.0/16"),
            (vec!["172.16.0.0/12"], "192.168.0.0/20"),
            (vec!["172.16.0.0/12", "192.168.1.0/24"], "192.168.16.0/20"),
        ] {
            let in_use: Vec<Ipv4Subnet> = in_use.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(first_free(&in_use).unwrap().to_string(), expected);
        }
        let all = ["172.16.0.0/12", "192.168.0.0/16"].map(|text| text.parse().unwrap());
        assert_eq!(first_free(&all), None);
    }
}
