//! The whole conversation of joining, both sides; ALPN `woolly-join`.

use crate::ca::{ClusterCa, read_request};
use crate::endpoint::{DialError, IDLE_TIMEOUT, dial_coordinator, join_client};
use crate::frame::{EncodedFrame, FrameError, Message};
use crate::frame_io::{read_frame, write_frame};
use crate::identity::{Identity, IdentityError, SigningRequest};
use crate::ids::WorkerId;
use crate::join::{JoinAccepted, JoinRequest};
use crate::join_secret::JoinSecret;
use crate::machine::host_id;
use crate::preamble::{Preamble, answer_greeting, greet, refuse};
use crate::refusal::{Refusal, RefusalCode};
use crate::tls::Trust;
use crate::token::JoinToken;
use crate::token_store::TokenStore;
use quinn::{Connection, Endpoint, VarInt};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use subtle::ConstantTimeEq;
use tokio::time::timeout;

/// Time that joining may take, from the first byte to the last.
pub const JOIN_TIME: Duration = Duration::from_secs(10);

/// The longest that a refusal may be held back: it must come within [`JOIN_TIME`].
pub const SLOW_MAX: Duration = Duration::from_secs(3);

/// Why a worker did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The coordinator could not be dialled, or is not the one that made the token.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The conversation broke, or the other side refused.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A key or certificate is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The settings of TLS are not usable.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The other side closed without an answer.
    #[error("the other side ended the conversation without an answer")]
    NoAnswer,
    /// It took too long.
    #[error("joining took longer than {} s", JOIN_TIME.as_secs())]
    Timeout,
}

/// What a worker without a certificate has to show.
#[derive(Clone, Debug)]
pub enum Ticket {
    /// A token that the coordinator made.
    Token(JoinToken),
    /// What both were given.
    Secret(JoinSecret),
}

/// A worker that has just been given a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its new id.
    pub worker: WorkerId,
    /// The name that it gave for people.
    pub name: String,
}

/// Worker: joins the cluster that the token names and returns the certificate with its key, not
/// yet saved. `name` is for people, see [`name_from`](crate::check::name_from).
///
/// # Errors
///
/// If the coordinator cannot be reached, is not the one that made the token, or refuses
/// ([`FrameError::Refused`], with a code and what to do).
pub async fn join(
    endpoint: &Endpoint,
    coordinator: SocketAddr,
    token: &JoinToken,
    name: &str,
    ours: &Preamble,
) -> Result<Identity, JoinError> {
    let config = join_client(Trust::Pin(token.pin), IDLE_TIMEOUT)?;
    let connection = dial_coordinator(endpoint, config, coordinator).await?;
    ask_in_time(&connection, token, name, ours).await
}

/// Worker: the same with a join secret; whose coordinator does not prove that it knows it is told nothing.
///
/// # Errors
///
/// As [`join`].
pub async fn join_with_secret(
    endpoint: &Endpoint,
    coordinator: SocketAddr,
    secret: &JoinSecret,
    name: &str,
    ours: &Preamble,
) -> Result<Identity, JoinError> {
    let trust = Trust::Secret(secret.clone());
    let config = join_client(trust.clone(), IDLE_TIMEOUT)?;
    let connection = dial_coordinator(endpoint, config, coordinator).await?;
    let chain = connection.peer_identity().and_then(|it| it.downcast::<Chain>().ok());
    // The handshake has found it before.
    let pin = chain.as_deref().and_then(|chain| {
        let (own, others) = chain.split_first()?;
        Some(trust.ca(own, others)?.0)
    });
    let pin = pin.ok_or(rustls::Error::NoCertificatesPresented)?;
    ask_in_time(&connection, &secret.token(pin), name, ours).await
}

/// The certificates that a peer has shown, its own first.
type Chain = Vec<CertificateDer<'static>>;

async fn ask_in_time(
    connection: &Connection,
    token: &JoinToken,
    name: &str,
    ours: &Preamble,
) -> Result<Identity, JoinError> {
    let asked = timeout(JOIN_TIME, ask(connection, token, name, ours)).await;
    connection.close(VarInt::from_u32(0), b"");
    asked.unwrap_or(Err(JoinError::Timeout))
}

async fn ask(
    connection: &Connection,
    token: &JoinToken,
    name: &str,
    ours: &Preamble,
) -> Result<Identity, JoinError> {
    let (mut send, mut recv) = greet(connection, ours).await?;
    let signing_request = SigningRequest::new()?;
    let request = JoinRequest {
        token_id: token.id.to_string(),
        token_secret: token.secret(),
        signing_request: signing_request.der().to_vec(),
        name: name.to_owned(),
        host: host_id(),
    };
    write_frame(&mut send, EncodedFrame::new(&request)?).await?;
    let answer = read_frame(&mut recv, &[JoinAccepted::KIND]).await?;
    let answer: JoinAccepted = answer.ok_or(JoinError::NoAnswer)?.message()?;
    Ok(signing_request.complete(&answer, &token.pin, SystemTime::now())?)
}

/// Coordinator: answers a connection that [`accepted`](crate::peer::accepted) found to be
/// [`Joining`](crate::peer::Peer::Joining), and closes it. The token is checked at once and a right
/// one answered at once; a refusal is answered after `slow` more, at most [`SLOW_MAX`]. Whom `admission` does not
/// want is refused whatever token it has.
///
/// # Errors
///
/// [`FrameError::Refused`] with what the worker was told, or whatever broke the conversation.
pub async fn answer_join(
    connection: &Connection,
    ours: &Preamble,
    admission: Admission,
    slow: Duration,
) -> Result<Joined, JoinError> {
    let slow = slow.min(SLOW_MAX);
    let answered = timeout(JOIN_TIME, answer(connection, ours, admission, slow)).await;
    connection.close(VarInt::from_u32(0), b"");
    answered.unwrap_or(Err(JoinError::Timeout))
}

async fn answer(
    connection: &Connection,
    ours: &Preamble,
    admission: Admission,
    slow: Duration,
) -> Result<Joined, JoinError> {
    let (mut send, mut recv) = answer_greeting(connection, ours).await?;
    let frame = read_frame(&mut recv, &[JoinRequest::KIND]).await?.ok_or(JoinError::NoAnswer)?;
    let (name, admitted) = match frame.message::<JoinRequest>() {
        Ok(request) => {
            let name = request.name.clone();
            // Locks and files block.
            let admit = move || admission.admit(&request, SystemTime::now());
            let admitted = tokio::task::spawn_blocking(admit).await;
            (name, admitted.unwrap_or_else(|_| Err(internal())))
        }
        Err(error) => (String::new(), Err(Refusal::malformed(&error.to_string()))),
    };
    match admitted {
        Ok((worker, accepted)) => {
            write_frame(&mut send, EncodedFrame::new(&accepted)?).await?;
            // The worker closes when it has read the answer; if it does not, time ends the wait.
            let _ = send.finish();
            connection.closed().await;
            Ok(Joined { worker, name })
        }
        Err(refusal) => {
            tokio::time::sleep(slow).await;
            refuse(connection, &mut send, &refusal).await;
            Err(FrameError::Refused(refusal).into())
        }
    }
}

/// Whether a worker that asks so may join.
pub type Screen = dyn Fn(&JoinRequest) -> Result<(), Refusal> + Send + Sync;

/// Who may join, and what makes them members.
#[derive(Clone)]
pub struct Admission {
    /// Signs their certificates.
    pub ca: Arc<ClusterCa>,
    /// What they must know one of.
    pub tokens: TokenStore,
    /// The token of the join secret, if there is one: good for any number of workers as long as it is here.
    pub shared: Option<JoinToken>,
    /// Who may not, whatever they know.
    pub screen: Arc<Screen>,
}

impl Admission {
    /// Whoever knows a token may join.
    pub fn of_all(ca: Arc<ClusterCa>, tokens: TokenStore) -> Admission {
        Admission { ca, tokens, shared: None, screen: Arc::new(|_| Ok(())) }
    }

    /// Checks the request, uses the token once and signs. Blocks for as long as small files take.
    ///
    /// # Errors
    ///
    /// What the worker is to be told.
    pub fn admit(
        &self,
        request: &JoinRequest,
        now: SystemTime,
    ) -> Result<(WorkerId, JoinAccepted), Refusal> {
        // Before the token, so that a request that is refused does not use it up.
        read_request(&request.signing_request).map_err(|e| Refusal::malformed(&e.to_string()))?;
        (self.screen)(request)?;
        if !self.shared.as_ref().is_some_and(|token| is_of(token, request)) {
            let redeemed = self.tokens.redeem(&request.token_id, &request.token_secret, now);
            redeemed.map_err(|error| {
                tracing::error!(%error, "cannot use the join tokens");
                internal()
            })??;
        }
        self.ca.sign(&request.signing_request, now).map_err(|error| {
            tracing::error!(%error, "cannot sign a worker's certificate");
            internal()
        })
    }
}

/// Whether the request shows this token.
fn is_of(token: &JoinToken, request: &JoinRequest) -> bool {
    let same_secret = token.secret().as_bytes().ct_eq(request.token_secret.as_bytes());
    request.token_id == token.id.to_string() && bool::from(same_secret)
}

fn internal() -> Refusal {
    let text = "the coordinator could not answer for a reason of its own: see its log";
    Refusal::new(RefusalCode::Internal, text)
}
