//! Deliberate faults: one line of wrong behaviour each, to prove that the simulator sees what it is there for.
//!
//! Without the feature `deliberate-faults`, which nothing turns on but the test that counts the faults caught,
//! [`is_on`] is a constant and every fault is compiled out. With it, one fault at a time is switched on for the
//! present thread. A fault marks the line that an invariant hangs on; it is never a way to configure anything.

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal)+) => {
        /// A line that can be broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Sabotage {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Sabotage {
            /// Every fault there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What is wrong when it is on.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii_start(),)+
                }
            }
        }
    };
}

faults! {
    /// A commit is a write without a sync.
    ReplyBeforeSync "reply-before-sync"
    /// A file is renamed into place and its directory is not synced.
    SkipDirectorySync "skip-directory-sync"
    /// A file is renamed into place before its content is synced.
    SkipFileSync "skip-file-sync"
    /// A short write counts as a whole one.
    IgnoreShortWrite "ignore-short-write"
    /// Recovery takes what an earlier life of a reused file left behind for a frame.
    AcceptStaleFrame "accept-stale-frame"
    /// Every record of a log is sealed with the same nonce.
    ReuseNonce "reuse-nonce"
    /// Compaction copies no tombstone.
    ForgetTombstone "forget-tombstone"
    /// The manifest names a checkpoint whose content is not synced.
    CheckpointBeforeData "checkpoint-before-data"
    /// The records of a commit are applied to the index last to first.
    ApplyOutOfOrder "apply-out-of-order"
    /// Nothing is sealed with associated data.
    DropAssociatedData "drop-associated-data"
    /// A document is in the cache from the moment its write is accepted.
    ShowBeforeDurable "show-before-durable"
    /// Conditions are judged against the durable version, whatever is pending.
    JudgeAgainstDurable "judge-against-durable"
    /// An answer decided by a pending version leaves at once.
    AnswerBeforeDurable "answer-before-durable"
    /// A read fills the cache although the entity has changed meanwhile.
    FillCacheBlindly "fill-cache-blindly"
    /// A put is carried out by the shard that received it.
    WriteWhereReceived "write-where-received"
    /// A request to another shard does not wake it.
    ForgetDoorbell "forget-doorbell"
    /// After a crash the versions that may have been given out are given out again.
    ReuseVersions "reuse-versions"
    /// Recovery takes what is in the page cache for durable.
    TrustPageCache "trust-page-cache"
    /// A compacted segment's file is reused while the manifest lists it.
    ReuseBeforeUnlisting "reuse-before-unlisting"
    /// Frames go to a segment that the manifest does not list.
    WriteBeforeListing "write-before-listing"
    /// No empty frame follows the last write.
    NoTailFrame "no-tail-frame"
    /// A shard goes on writing after a failed write.
    WriteOnAfterFailure "write-on-after-failure"
    /// A checkpoint claims to cover what was applied while it was written.
    CheckpointClaimsMore "checkpoint-claims-more"
    /// Compaction lets the index point to a record that is not the newest any more.
    RepointBlindly "repoint-blindly"
    /// Data keys are dropped while files still name them.
    DropKeysInUse "drop-keys-in-use"
    /// A rewritten store gives out versions from the beginning.
    RewriteVersionsAnew "rewrite-versions-anew"
    /// A page's cursor names the first key that was left out.
    CursorSkipsOne "cursor-skips-one"
    /// A failed commit is answered as a durable one.
    AnswerFailureAsSuccess "answer-failure-as-success"
    /// A write that the disk has not confirmed in time is said not to have been done.
    RefuseLateWrite "refuse-late-write"
    /// A write that nobody waits for any more is not settled when its commit ends.
    ForgetLateWrite "forget-late-write"
}

#[cfg(feature = "deliberate-faults")]
pub use switched::{Switched, is_on};

/// Whether a line is to be wrong.
#[cfg(not(feature = "deliberate-faults"))]
#[inline(always)]
pub const fn is_on(_: Sabotage) -> bool {
    false
}

#[cfg(feature = "deliberate-faults")]
mod switched {
    use super::Sabotage;
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    /// Lets a build that holds faults be told from one that does not.
    #[used]
    static MARK: [u8; 36] = *b"built with deliberate faults: unsafe";

    /// Whether a line is to be wrong.
    pub fn is_on(fault: Sabotage) -> bool {
        NOW.get() == Some(fault)
    }

    /// While alive, a fault is on for this thread.
    pub struct Switched(());

    impl Switched {
        /// Turns a fault on, and whichever was on before off.
        pub fn on(fault: Sabotage) -> Self {
            NOW.set(Some(fault));
            Self(())
        }
    }

    impl Drop for Switched {
        fn drop(&mut self) {
            NOW.set(None);
        }
    }
}
