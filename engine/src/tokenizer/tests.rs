//! Hostile and odd vocabularies and texts.
