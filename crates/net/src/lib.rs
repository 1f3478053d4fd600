//! HTTP client and server plumbing, TLS, deadlines
