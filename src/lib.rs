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
//! How a query is computed: [`Engine::composite`] takes a [`Bank`] (the images), [`Components`] (the windows) and
//! [`Queries`] (z and sigma, checked); pass 1 finds the normaliser of every window's posterior, pass 2 forms the
//! weights and accumulates the composite. The folder docs/engine explains it, from an overview to how to change a
//! kernel.
//!
//! | room | subject |
//! |---|---|
//! | [`bank`] | the training images, borrowed in place as bytes or floats |
//! | [`query`], [`atoms`], `sources` | noisy images and noise levels, checked; which images count for them; these and their priors, by position |
//! | [`components`], [`runs`] | squares, masks as plans of runs, the full image; cover counts, mirror images |
//! | [`regime`] | every switch point, cut-off and bound on candidates, for CPU and GPU |
//! | [`engine`] | the one entry |
//! | [`posterior`] | the (shift, sum) state of a softmax and its merge |
//! | [`posteriors`] | what pass 1 found for the queries of a call, and what can be asked of it |
//! | [`rank_evidence`] | pass 1 on one of several ranks of the images, and what it adds to a composite |
//! | `cpu` | the passes on the CPU, with three routes: `dense`, `full`, `sparse` |
//! | `cuda` | the same on NVIDIA GPUs, with the feature of that name |
//! | `simd` | vectors of every instruction set; all unsafe code of the CPU engine |
//! | [`noise`] | the normal numbers of torch's generator |
//! | [`covariance`] | mean and covariance of bytes |
//! | [`reading`] | images of many files: members of archives, PNGs |
//! | [`reserve`] | memory kept back, so that running out of it is an error |
//! | [`monitor`], [`threads`], [`info`], [`error`](mod@error) | progress and stopping, the thread pool, this CPU, the one error type |
//!
//! ```
//! use ndarray::Array4;
//! use pspc_rs::{Bank, Components, Engine, Queries};
//!
//! let images = Array4::from_shape_fn((50, 1, 8, 8), |(n, _, y, x)| ((n * 31 + y * 7 + x * 3) % 256) as u8);
//! let bank = Bank::from_u8(images.view())?;
//! let z = Array4::from_elem((2, 1, 8, 8), 0.1_f32);
//! let queries = Queries::new(&bank, z.view(), &[0.5, 2.0])?;
//! let components = Components::square(8, 8, 3)?;
//! let denoised = Engine::Cpu.composite(&bank, &components, &queries, true, &mut |_, _| Ok(()))?;
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

pub mod atoms;
pub mod bank;
pub mod components;
pub mod covariance;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod directions;
pub mod engine;
pub mod error;
pub mod filter;
pub mod filtered;
mod found;
mod heaviest;
pub mod info;
pub mod monitor;
pub mod noise;
pub mod posterior;
pub mod posteriors;
#[cfg(feature = "python")]
mod python;
pub mod query;
pub mod rank_evidence;
pub mod reading;
pub mod regime;
pub mod reserve;
pub mod runs;
mod simd;
mod sources;
#[cfg(feature = "stages")]
#[doc(hidden)]
pub mod stages;
pub mod threads;

pub use atoms::Atoms;
pub use bank::{Bank, Pixels};
pub use components::Components;
pub use engine::Engine;
pub use error::{Error, Result};
pub use monitor::Monitor;
pub use posteriors::{Posteriors, RankDerivatives};
pub use query::Queries;
