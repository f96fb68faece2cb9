//! Hyper-parameters of hostile files, and an architecture that is nothing but a row of a table.

mod features;
mod hyper;
mod mixture;
mod toy;
