//! The tests that every store must pass. They panic where it breaks the contract.
