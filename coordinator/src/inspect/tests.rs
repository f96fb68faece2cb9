//! What `inspect` says of models that run, and of files that do not.
