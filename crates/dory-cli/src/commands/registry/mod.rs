//! The verbs about registries themselves: who we are there, and what they have.

pub(super) mod credentials;
mod login;
mod search;

pub(super) use login::{LOGIN, LOGOUT};
pub(super) use search::SEARCH;
