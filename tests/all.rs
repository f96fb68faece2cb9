//! Every test of the whole, in one binary so that it links once.

mod architecture;
mod source;
mod tidy;
