//! How values are read, printed and compared (`configuration.md` §0).
