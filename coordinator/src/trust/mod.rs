//! Who may join, and where that is kept: the state directory, the join tokens, and the server that
//! exchanges one for a certificate. It knows no plan and no model.

pub mod join_server;
pub mod state;
pub mod tokens;
