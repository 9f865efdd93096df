//! Control groups v1, v2, hybrid or none behind one interface.
