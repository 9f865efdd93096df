//! What the surroundings allow, found by trying, and the tier that follows.
