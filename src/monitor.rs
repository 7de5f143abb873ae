//! `Monitor`: how a long call reports progress and learns that it should stop.

use crate::error::Result;

/// Called every 0.05 to 0.2 seconds with the work done and the total work; an error stops the call.
pub type Monitor<'m> = dyn FnMut(u64, u64) -> Result<()> + 'm;
