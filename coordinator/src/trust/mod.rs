//! Who may join and stay, and where that is kept: the state directory, the join tokens, the server that
//! exchanges one for a certificate, the renewal of certificates, and who may not be here. It knows no plan and no
//! model.

pub mod exclusions;
pub mod join_server;
pub mod renewals;
pub mod state;
pub mod tokens;
