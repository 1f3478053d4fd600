//! The daemon: performs what the machine decides, and answers for it
