//! Buffers that are used again from one file to the next.

/// Gives a buffer a length; none if there is no memory for it.
pub(super) fn resize(bytes: &mut Vec<u8>, len: usize) -> Option<()> {
    bytes.try_reserve(len.saturating_sub(bytes.len())).ok()?;
    bytes.resize(len, 0);
    Some(())
}

/// Appends to a buffer; none if there is no memory for it.
pub(super) fn append(bytes: &mut Vec<u8>, more: &[u8]) -> Option<()> {
    bytes.try_reserve(more.len()).ok()?;
    bytes.extend_from_slice(more);
    Some(())
}
