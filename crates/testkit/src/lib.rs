//! World builder, fixtures and oracles for tests.
