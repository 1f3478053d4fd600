//! Configuration: layers, YAML 1.1, validation
