//! Exact, fast posterior mean composites: the denoisers of "Towards a Mechanistic Explanation of Diffusion Model
//! Generalization" (Niedoba et al., ICML 2025) and their kin, without any network.
//!
//! For a noisy image `z` at noise level `sigma`, images `x_n` and windows `k`,
//!
//! ```text
//! w_kn    = softmax over n of -|z - x_n|^2 / (2 sigma^2), restricted to window k
//! D(z)(p) = sum over windows k at p of sum_n w_kn x_n(p), divided by the number of windows at p
//! ```
//!
//! A query's way: [`composite()`] takes a [`Bank`] (the images), [`Windows`], z and sigma; pass 1 finds every window's
//! [`posterior`] normaliser, pass 2 forms the weights and accumulates the composite. The rooms:
//!
//! | room | subject |
//! |---|---|
//! | [`bank`] | the training images, borrowed in place as bytes or floats |
//! | [`windows`], [`runs`] | squares, masks as run plans, the full image; cover counts, mirror images |
//! | [`posterior`] | the (least energy, sum) state of a softmax and its merge |
//! | [`composite`](mod@composite) | the one entry and its checks |
//! | [`cpu`] | both passes on CPU: tiles, energies, weights, spread, gather, instruction sets |
//! | `cuda` | both passes on NVIDIA GPUs, with the feature of that name |
//! | [`threads`] | the thread pool |
//! | [`error`](mod@error) | the one error type |
//!
//! ```
//! use ndarray::Array4;
//! use pspc_rs::{Bank, Windows, composite};
//!
//! let images = Array4::from_shape_fn((50, 1, 8, 8), |(n, _, y, x)| ((n * 31 + y * 7 + x * 3) % 256) as u8);
//! let bank = Bank::from_u8(images.view())?;
//! let z = Array4::from_elem((2, 1, 8, 8), 0.1_f32);
//! let denoised = composite(&bank, &Windows::square(8, 8, 3)?, z.view(), &[0.5, 2.0], true, &mut |_, _| Ok(()))?;
//! assert_eq!(denoised.dim(), (2, 1, 8, 8));
//! # Ok::<(), pspc_rs::Error>(())
//! ```

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking, and exact numbers are compared"
    )
)]

pub mod bank;
pub mod composite;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod error;
pub mod posterior;
#[cfg(feature = "python")]
mod python;
pub mod runs;
pub mod threads;
pub mod windows;

pub use bank::{Bank, Pixels};
pub use composite::{Monitor, composite};
pub use error::{Error, Result};
pub use windows::Windows;
