//! What changes files: each operation knows its key, which is made of content alone, and how to make its layer.

pub(crate) mod copy;
pub(crate) mod digests;
pub(crate) mod key;
pub(crate) mod owner;
pub(crate) mod permissions;
pub(crate) mod select;
pub(crate) mod walk;
