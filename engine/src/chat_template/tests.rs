//! Hostile templates, and contents that try to take a role.
