//! Content by digest, unpacked layers, the image index and volumes, crash-safe.
