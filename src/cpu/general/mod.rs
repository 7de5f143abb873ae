//! The general route: filters, whose components weigh pixels in any way, over views of the images, all of it in float64.
//!
//! Sixteen images at a time are transposed, seen under every view, and compared with every query of a work item; energies of
//! all components lie side by side in the second-level cache. It serves every noise level without lists or a second
//! precision, and computes whatever can be asked of a posterior. Composites that float32 serves are those of the filtered
//! route, which is several times as fast.

pub(crate) mod call;
pub(crate) mod composite;
pub(crate) mod derivative;
pub(crate) mod evidence;
mod operate;
pub(crate) mod statistics;
pub(crate) mod variance;
mod weights;
