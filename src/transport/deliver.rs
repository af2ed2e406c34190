//! Handing received messages to the member.

use std::time::Duration;

use thiserror::Error;
use tokio::time::sleep;

use super::Local;
use crate::{
    pb::raftpb::{Message, MessageType},
    types::MemberId,
};

/// How long an append is offered to a member whose queue for appends is full. Its stream waits meanwhile, and with it
/// the sender: a short jam costs no append, and so no probing afterwards.
const APPEND_PATIENCE: Duration = Duration::from_millis(200);
/// Between two offers.
const APPEND_PAUSE: Duration = Duration::from_millis(5);

/// Why a message was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Undelivered {
    /// Its type never travels, or not this way.
    #[error("a message of type {0} may not be sent here")]
    Type(i32),
    /// It names another sender than the one it came from.
    #[error("a message from member {0} came from somebody else")]
    Sender(MemberId),
    /// It is for somebody else.
    #[error("a message to member {0} is misdirected")]
    Receiver(MemberId),
    /// The member takes no more of its kind now.
    #[error("too many messages are waiting")]
    Busy,
}

/// Whether messages of this type go from member to member, snapshots among them.
pub(super) fn travels(message: &Message) -> bool {
    use MessageType as T;
    matches!(
        T::try_from(message.r#type),
        Ok(T::MsgProp
            | T::MsgApp
            | T::MsgAppResp
            | T::MsgVote
            | T::MsgVoteResp
            | T::MsgSnap
            | T::MsgHeartbeat
            | T::MsgHeartbeatResp
            | T::MsgTransferLeader
            | T::MsgTimeoutNow
            | T::MsgReadIndex
            | T::MsgReadIndexResp
            | T::MsgPreVote
            | T::MsgPreVoteResp)
    )
}

/// Whether the message is a snapshot, which has a way of its own.
pub(super) fn is_snapshot(message: &Message) -> bool {
    message.r#type == i32::from(MessageType::MsgSnap)
}

/// Hands a message from `sender` over. Only an append waits, and not for long.
///
/// # Errors
/// [`Undelivered`]; the message is dropped.
pub(super) async fn deliver(local: &dyn Local, sender: Option<MemberId>, message: Message) -> Result<(), Undelivered> {
    check(local, sender, &message)?;
    if message.r#type != i32::from(MessageType::MsgApp) {
        return local.receive(message).map_err(|_| Undelivered::Busy);
    }
    let mut waited = Duration::ZERO;
    loop {
        // Entries are shared, not copied.
        if local.receive(message.clone()).is_ok() {
            return Ok(());
        }
        if waited >= APPEND_PATIENCE {
            return Err(Undelivered::Busy);
        }
        sleep(APPEND_PAUSE).await;
        waited += APPEND_PAUSE;
    }
}

fn check(local: &dyn Local, sender: Option<MemberId>, message: &Message) -> Result<(), Undelivered> {
    if !travels(message) || is_snapshot(message) {
        return Err(Undelivered::Type(message.r#type));
    }
    if sender.is_some_and(|sender| sender.0 != message.from) || message.from == 0 {
        return Err(Undelivered::Sender(MemberId(message.from)));
    }
    if message.to != local.member().0 {
        return Err(Undelivered::Receiver(MemberId(message.to)));
    }
    Ok(())
}
