//! The decision, and the sans-I/O machine around it
