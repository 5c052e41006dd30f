//! Builders and seeded data for the tests.
