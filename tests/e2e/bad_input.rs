//! Input that cannot be worked with.
