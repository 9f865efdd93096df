//! Log drivers and the 8-byte stream frames: the shim writes, the engine reads.
