//! `docker rmi`: which names go, which images go, and when neither may. The rules and the texts are dockerd's.

use std::collections::HashSet;

use dory_types::{ContainerId, Digest, ImageId, ImageReference};

use super::ImageIndex;
use super::config::chain_ids;
use crate::error::StoreError;
use crate::store::{State, Store};

/// A container that was made from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    /// Which.
    pub container: ContainerId,
    /// True while it runs or is paused.
    pub running: bool,
}

/// What a removal did, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged {
        /// In its short form.
        reference: ImageReference,
        /// What it meant.
        image: ImageId,
    },
    /// An image is gone.
    Image(ImageId),
    /// A layer with all below it is gone: its chain id.
    Layer(Digest),
}

/// How far a removal goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Names and stopped containers do not keep the image.
    pub force: bool,
    /// Parents without a name of their own stay.
    pub no_prune: bool,
}

/// An image or a name may not be removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// The image's last name would go while a container needs it.
    #[error(
        "conflict: unable to remove repository reference {reference:?} (must force) - container {} is using its \
         referenced image {}", container.short(), image.short()
    )]
    ReferenceInUse {
        /// As the caller wrote it.
        reference: String,
        /// One that uses it.
        container: ContainerId,
        /// The image.
        image: ImageId,
    },
    /// Other images were built from it.
    #[error("conflict: unable to delete {} (cannot be forced) - image has dependent child images", .0.short())]
    HasChildren(ImageId),
    /// A container runs from it.
    #[error(
        "conflict: unable to delete {} (cannot be forced) - image is being used by running container {}",
        image.short(), container.short()
    )]
    Running {
        /// The image.
        image: ImageId,
        /// One that runs.
        container: ContainerId,
    },
    /// It has several names, and was named by its id.
    #[error(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories", .0.short()
    )]
    ManyReferences(ImageId),
    /// A stopped container was made from it.
    #[error(
        "conflict: unable to delete {} (must be forced) - image is being used by stopped container {}",
        image.short(), container.short()
    )]
    Stopped {
        /// The image.
        image: ImageId,
        /// One that is stopped.
        container: ContainerId,
    },
}

impl RemoveError {
    /// True where a container is the reason.
    fn is_use(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Stopped { .. } | Self::ReferenceInUse { .. })
    }
}

/// Which reasons to keep an image are looked at.
#[derive(Debug, Clone, Copy)]
struct Conflicts {
    stopped_container: bool,
    active_reference: bool,
}

impl Store {
    /// Removes what `reference` names: a name, and the image with it where that was its last one; or an image by its
    /// id. `users` gives the containers of an image; it is called with the store locked and must not call back.
    ///
    /// # Errors
    /// [`StoreError::Resolve`] and [`StoreError::Remove`]; nothing has changed then.
    pub fn remove_image(
        &self,
        reference: &str,
        options: RemoveOptions,
        users: &dyn Fn(&ImageId) -> Vec<ImageUser>,
    ) -> Result<Vec<Removed>, StoreError> {
        let mut change = self.change(Vec::new())?;
        let mut removal = Removal { index: &mut change.index, users, removed: Vec::new() };
        removal.remove(reference, options)?;
        let removed = removal.removed;
        let removed = with_layers(&change.state, &change.index, removed);
        change.commit()?;
        Ok(removed)
    }
}

/// Adds to each removed image the layers that go with it, the top one first.
fn with_layers(state: &State, index: &ImageIndex, removed: Vec<Removed>) -> Vec<Removed> {
    if !removed.iter().any(|entry| matches!(entry, Removed::Image(_))) {
        return removed;
    }
    let images = index.images.values().map(|image| &image.layers);
    let snapshots = state.snapshots.values().map(|snapshot| &snapshot.layers);
    let mut kept: HashSet<Digest> = images.chain(snapshots).flat_map(|layers| chain_ids(layers)).collect();
    let mut complete = Vec::new();
    for entry in removed {
        complete.push(entry.clone());
        let Removed::Image(id) = &entry else { continue };
        let Some(image) = state.index.images.get(id) else { continue };
        let chain = chain_ids(&image.layers);
        // Each chain goes with the first image that has it.
        complete.extend(chain.into_iter().rev().filter(|layer| kept.insert(*layer)).map(Removed::Layer));
    }
    complete
}

/// A removal in the making, on a copy of the index.
struct Removal<'a> {
    index: &'a mut ImageIndex,
    users: &'a dyn Fn(&ImageId) -> Vec<ImageUser>,
    removed: Vec<Removed>,
}

impl Removal<'_> {
    /// Step by step what dockerd's `ImageDelete` does.
    fn remove(&mut self, text: &str, options: RemoveOptions) -> Result<(), StoreError> {
        let id = self.index.resolve(text)?;
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let by_id = id.as_str().starts_with(prefix);
        if by_id {
            if is_single(&self.index.references_of(&id)) {
                let conflicts = Conflicts { stopped_container: !options.force, active_reference: false };
                self.check(&id, conflicts)?;
                self.untag_all(&id);
            }
        } else if !self.remove_reference(text, &id, options.force)? {
            return Ok(());
        }
        Ok(self.delete(&id, options, !by_id)?)
    }

    /// Removes one name; true where it was the image's last one.
    fn remove_reference(&mut self, text: &str, id: &ImageId, force: bool) -> Result<bool, StoreError> {
        let references = self.index.references_of(id);
        if !force
            && is_single(&references)
            && let Some(user) = (self.users)(id).into_iter().next()
        {
            let (reference, container, image) = (text.to_owned(), user.container, id.clone());
            return Err(RemoveError::ReferenceInUse { reference, container, image }.into());
        }
        let parsed: ImageReference = text.parse().map_err(super::ResolveError::Reference)?;
        let named = references.iter().find(|reference| **reference == parsed);
        // A name with tag and digest was resolved by its digest.
        let named =
            named.or_else(|| references.iter().find(|reference| reference.digest() == parsed.digest()));
        let Some(named) = named.cloned() else { return Ok(references.is_empty()) };
        self.untag(&named);
        let left = self.index.references_of(id);
        let same_repository = |other: &&ImageReference| other.repository() == named.repository();
        // Digests of a repository stay only as long as a tag of it does.
        if named.digest().is_none() && !left.iter().filter(same_repository).any(|other| other.tag().is_some())
        {
            left.iter().filter(same_repository).for_each(|reference| self.untag(reference));
        }
        Ok(self.index.references_of(id).is_empty())
    }

    /// Deletes an image with its names and then its parents, as far as nothing keeps them. `quiet`: a name was asked
    /// for and is gone already, so that what keeps the image is no error.
    fn delete(&mut self, id: &ImageId, options: RemoveOptions, quiet: bool) -> Result<(), RemoveError> {
        let conflicts = Conflicts { stopped_container: !options.force, active_reference: !options.force };
        if let Err(error) = self.check(id, conflicts) {
            return if quiet && (!self.is_dangling(id) || error.is_use()) { Ok(()) } else { Err(error) };
        }
        self.untag_all(id);
        let entry = self.index.images.remove(id);
        self.removed.push(Removed::Image(id.clone()));
        match entry.and_then(|entry| entry.parent) {
            Some(parent) if !options.no_prune && self.index.images.contains_key(&parent) => {
                self.delete(&parent, RemoveOptions { force: false, no_prune: false }, true)
            }
            _ => Ok(()),
        }
    }

    /// The first reason to keep an image.
    fn check(&self, id: &ImageId, conflicts: Conflicts) -> Result<(), RemoveError> {
        if self.has_children(id) {
            return Err(RemoveError::HasChildren(id.clone()));
        }
        let users = (self.users)(id);
        if let Some(user) = users.iter().find(|user| user.running) {
            return Err(RemoveError::Running { image: id.clone(), container: user.container.clone() });
        }
        if conflicts.active_reference && !self.index.references_of(id).is_empty() {
            return Err(RemoveError::ManyReferences(id.clone()));
        }
        match users.into_iter().next() {
            Some(user) if conflicts.stopped_container => {
                Err(RemoveError::Stopped { image: id.clone(), container: user.container })
            }
            _ => Ok(()),
        }
    }

    fn has_children(&self, id: &ImageId) -> bool {
        self.index.images.values().any(|entry| entry.parent.as_ref() == Some(id))
    }

    fn is_dangling(&self, id: &ImageId) -> bool {
        self.index.references_of(id).is_empty() && !self.has_children(id)
    }

    fn untag(&mut self, reference: &ImageReference) {
        if let Some(image) = self.index.references.remove(reference) {
            self.removed.push(Removed::Untagged { reference: reference.clone(), image });
        }
    }

    fn untag_all(&mut self, id: &ImageId) {
        for reference in self.index.references_of(id) {
            self.untag(&reference);
        }
    }
}

/// True for one tag at most, with the digests of its own repository only.
fn is_single(references: &[ImageReference]) -> bool {
    let mut tags = references.iter().filter(|reference| reference.digest().is_none());
    let single = tags.next().or(references.first());
    tags.next().is_none()
        && single
            .is_none_or(|single| references.iter().all(|other| other.repository() == single.repository()))
}

#[cfg(test)]
mod tests {
    use dory_types::Timestamp;

    use super::*;
    use crate::image::ImageEntry;

    fn id(letter: char) -> ImageId {
        letter.to_string().repeat(64).parse().unwrap()
    }

    fn container() -> ContainerId {
        "c0".repeat(32).parse().unwrap()
    }

    /// `a` with two tags of one repository, `b` built from `a` with one tag, `d` without any.
    fn index() -> ImageIndex {
        let mut index = ImageIndex::default();
        for (letter, parent) in [('a', None), ('b', Some('a')), ('d', None)] {
            index.images.insert(id(letter), ImageEntry { parent: parent.map(id), ..ImageEntry::default() });
        }
        for (name, letter) in [("x:1", 'a'), ("x:2", 'a'), ("y:1", 'b')] {
            index.tag(name.parse().unwrap(), &id(letter), Timestamp::now());
        }
        index
    }

    /// What a removal does, in short words, or its error.
    fn remove(
        index: &mut ImageIndex,
        text: &str,
        force: bool,
        used: Option<(char, bool)>,
    ) -> Result<String, String> {
        let users = move |image: &ImageId| match used {
            Some((letter, running)) if *image == id(letter) => {
                vec![ImageUser { container: container(), running }]
            }
            _ => Vec::new(),
        };
        let mut changed = index.clone();
        let mut removal = Removal { index: &mut changed, users: &users, removed: Vec::new() };
        let options = RemoveOptions { force, no_prune: false };
        removal.remove(text, options).map_err(|error| error.to_string())?;
        let words: Vec<_> = removal
            .removed
            .iter()
            .map(|removed| match removed {
                Removed::Untagged { reference, .. } => reference.familiar(),
                Removed::Image(id) => id.as_str()[..1].to_owned(),
                Removed::Layer(_) => "layer".to_owned(),
            })
            .collect();
        *index = changed;
        Ok(words.join(" "))
    }

    #[test]
    fn names_go_before_images() {
        let mut index = index();
        assert_eq!(remove(&mut index, "x:1", false, None).unwrap(), "x:1");
        // The last name: the image stays for its child without an error.
        assert_eq!(remove(&mut index, "x:2", false, None).unwrap(), "x:2");
        assert!(index.images.contains_key(&id('a')));
        // The child goes, and takes its parent without a name along.
        assert_eq!(remove(&mut index, "y:1", false, None).unwrap(), "y:1 b a");
        assert_eq!(remove(&mut index, "dddd", false, None).unwrap(), "d");
        assert_eq!(index, ImageIndex::default());
    }

    #[test]
    fn conflicts_have_dockers_texts() {
        let mut alone = index();
        alone.images.remove(&id('b'));
        alone.references.remove(&"y:1".parse().unwrap());
        let mut one_tag = alone.clone();
        one_tag.references.remove(&"x:2".parse().unwrap());
        let a12 = "a".repeat(12);
        let cases = [
            (
                index(),
                "aaaa",
                true,
                None,
                format!("unable to delete {a12} (cannot be forced) - image has dependent child images"),
            ),
            (
                alone.clone(),
                "aaaa",
                false,
                None,
                format!(
                    "unable to delete {a12} (must be forced) - image is referenced in multiple repositories"
                ),
            ),
            (
                alone.clone(),
                "aaaa",
                true,
                Some(('a', true)),
                format!(
                    "unable to delete {a12} (cannot be forced) - image is being used by running container c0c0c0c0c0c0"
                ),
            ),
            (
                one_tag.clone(),
                "aaaa",
                false,
                Some(('a', false)),
                format!(
                    "unable to delete {a12} (must be forced) - image is being used by stopped container c0c0c0c0c0c0"
                ),
            ),
            (
                one_tag.clone(),
                "x:1",
                false,
                Some(('a', false)),
                format!(
                    "unable to remove repository reference \"x:1\" (must force) - container c0c0c0c0c0c0 is using its referenced image {a12}"
                ),
            ),
        ];
        for (mut index, text, force, used, message) in cases {
            assert_eq!(remove(&mut index, text, force, used).unwrap_err(), format!("conflict: {message}"));
        }
        assert_eq!(remove(&mut one_tag.clone(), "x:1", true, Some(('a', true))).unwrap(), "x:1");
        assert_eq!(remove(&mut one_tag, "x:1", true, Some(('a', false))).unwrap(), "x:1 a");
        assert_eq!(remove(&mut alone, "aaaa", true, None).unwrap(), "x:1 x:2 a");
    }

    #[test]
    fn digests_go_with_the_last_tag_of_their_repository() {
        let mut index = ImageIndex::default();
        index.images.insert(id('a'), ImageEntry::default());
        let pinned = ImageReference::digested("x".parse().unwrap(), Digest::of(b"m"));
        index.tag("x:1".parse().unwrap(), &id('a'), Timestamp::now());
        index.tag(pinned.clone(), &id('a'), Timestamp::now());
        let digest = pinned.familiar();
        assert_eq!(remove(&mut index.clone(), &digest, false, None).unwrap(), digest);
        assert_eq!(remove(&mut index.clone(), "aaa", false, None).unwrap(), format!("x:1 {digest} a"));
        assert_eq!(remove(&mut index, "x:1", false, None).unwrap(), format!("x:1 {digest} a"));
    }
}
