//! The whole conversation of renewing a certificate that may have expired, both sides; ALPN `woolly-renew`. One
//! that has not is renewed on the control stream, by the same messages.

use crate::endpoint::{IDLE_TIMEOUT, dial_coordinator, renewal_client};
use crate::frame::{EncodedFrame, FrameError, Message};
use crate::frame_io::{read_frame, write_frame};
use crate::identity::{Identity, SigningRequest};
use crate::join::{JoinAccepted, RenewalRequest};
use crate::joining::{JOIN_TIME, JoinError};
use crate::preamble::{Preamble, answer_greeting, greet, refuse};
use crate::refusal::Refusal;
use quinn::{Connection, Endpoint, VarInt};
use std::net::SocketAddr;
use tokio::time::timeout;

/// Worker: exchanges its certificate for a new one with a new key, not yet saved.
///
/// # Errors
///
/// If the coordinator cannot be reached, is of another cluster, or refuses ([`FrameError::Refused`]).
pub async fn renew(
    endpoint: &Endpoint,
    coordinator: SocketAddr,
    old: &Identity,
    ours: &Preamble,
) -> Result<Identity, JoinError> {
    let config = renewal_client(old, IDLE_TIMEOUT)?;
    let connection = dial_coordinator(endpoint, config, coordinator).await?;
    let asked = timeout(JOIN_TIME, ask(&connection, old, ours)).await;
    connection.close(VarInt::from_u32(0), b"");
    asked.unwrap_or(Err(JoinError::Timeout))
}

async fn ask(
    connection: &Connection,
    old: &Identity,
    ours: &Preamble,
) -> Result<Identity, JoinError> {
    let (mut send, mut recv) = greet(connection, ours).await?;
    let request = SigningRequest::new()?;
    let asked = RenewalRequest { signing_request: request.der().to_vec() };
    write_frame(&mut send, EncodedFrame::new(&asked)?).await?;
    let answer = read_frame(&mut recv, &[JoinAccepted::KIND]).await?;
    let answer: JoinAccepted = answer.ok_or(JoinError::NoAnswer)?.message()?;
    Ok(request.complete_renewal(&answer, old)?)
}

/// Coordinator: answers a connection that [`accepted`](crate::peer::accepted) found to be
/// [`Renewing`](crate::peer::Peer::Renewing), and closes it. `sign` says what the worker gets.
///
/// # Errors
///
/// [`FrameError::Refused`] with what the worker was told, or whatever broke the conversation.
pub async fn answer_renewal(
    connection: &Connection,
    ours: &Preamble,
    sign: impl FnOnce(&RenewalRequest) -> Result<JoinAccepted, Refusal>,
) -> Result<(), JoinError> {
    let answered = timeout(JOIN_TIME, answer(connection, ours, sign)).await;
    connection.close(VarInt::from_u32(0), b"");
    answered.unwrap_or(Err(JoinError::Timeout))
}

async fn answer(
    connection: &Connection,
    ours: &Preamble,
    sign: impl FnOnce(&RenewalRequest) -> Result<JoinAccepted, Refusal>,
) -> Result<(), JoinError> {
    let (mut send, mut recv) = answer_greeting(connection, ours).await?;
    let frame = read_frame(&mut recv, &[RenewalRequest::KIND]).await?.ok_or(JoinError::NoAnswer)?;
    let request = frame.message::<RenewalRequest>();
    let signed = request.map_err(|e| Refusal::malformed(&e.to_string())).and_then(|r| sign(&r));
    match signed {
        Ok(accepted) => {
            write_frame(&mut send, EncodedFrame::new(&accepted)?).await?;
            // The worker closes when it has read the answer; if it does not, time ends the wait.
            let _ = send.finish();
            connection.closed().await;
            Ok(())
        }
        Err(refusal) => {
            refuse(connection, &mut send, &refusal).await;
            Err(FrameError::Refused(refusal).into())
        }
    }
}
