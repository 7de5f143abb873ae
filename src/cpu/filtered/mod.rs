//! The filtered route: composites of filters, whose components weigh pixels in any way, in float32.
//!
//! Components that answer for one place each, a pixel or a value, need a single pass: beside the sum of weights, the softmax
//! keeps the weighted sums of the few values that a component answers for ([`means`]). Others take a second pass, in which
//! weights become coefficients of pixels ([`composite`]).
//!
//! Energies on squares are those of the dense route ([`squares`]); those of other weights are sums over planes of residuals
//! ([`planes`], [`sums`]). Sixteen images under a view are copied into a tile, which all queries of a work item share. Views that
//! few components see are copied on the rectangles of these components alone, and of views that are one another shifted around
//! only one is copied: z is shifted instead ([`pieces`]).
//!
//! Queries for which float32 has too few digits, and what this route does not know, are left to the general route.

mod call;
mod composite;
mod means;
mod pass;
mod pieces;
mod planes;
mod squares;
mod stages;
mod sums;

pub(crate) use means::TotalMeans;
pub(crate) use stages::{composites, contributions, evidence};
