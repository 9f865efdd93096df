//! Docker's verbs on the command line, through the API.
