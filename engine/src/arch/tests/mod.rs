//! Hyper-parameters of hostile files.

mod hyper;
