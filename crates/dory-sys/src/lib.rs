//! The only unsafe code of the workspace: system calls that rustix lacks, with owned descriptors out.
