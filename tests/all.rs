//! Every test of the whole, in one binary so that it links once.

mod architecture;
mod golden;
mod source;
mod tidy;
