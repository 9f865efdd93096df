//! The Docker Engine API over HTTP: routes, hijack, versions, and the one table from error to status.
