//! `Engine`: the one entry, whatever device runs the passes.

use std::path::PathBuf;
#[cfg(feature = "cuda")]
use std::sync::Arc;

use ndarray::{Array4, Array5, ArrayView5};

use crate::bank::Bank;
use crate::components::Components;
use crate::cpu;
#[cfg(feature = "cuda")]
use crate::cuda::{CudaEngine, Question};
#[cfg(feature = "cuda")]
use crate::directions::part_of_monitor;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::posteriors::Posteriors;
use crate::query::Queries;
#[cfg(feature = "cuda")]
use crate::query::check_sigma;

/// A device that computes composites.
#[derive(Debug)]
pub enum Engine {
    /// The CPU, on the threads of [`crate::threads`].
    Cpu,
    /// An NVIDIA GPU that holds the images of one bank.
    #[cfg(feature = "cuda")]
    Cuda(Arc<CudaEngine>),
}

impl Engine {
    /// The images of `bank` on GPU number `ordinal`, to which they are copied when first used. Kernels compiled for the GPU
    /// are kept in the folder `cache` if one is given. An error says why the GPU cannot be used.
    pub fn cuda(bank: &Bank<'_>, ordinal: usize, cache: Option<PathBuf>) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return CudaEngine::new(bank, ordinal, cache).map(|engine| Self::Cuda(Arc::new(engine)));
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (bank, ordinal, cache);
            Err(Error::CudaUnavailable { reason: "this build has no GPU engine".to_owned() })
        }
    }

    /// What computes: "the CPU", or the number and name of a GPU.
    #[must_use]
    pub fn device_name(&self) -> String {
        match self {
            Self::Cpu => "the CPU".to_owned(),
            #[cfg(feature = "cuda")]
            Self::Cuda(engine) => engine.device_name(),
        }
    }

    /// Whether it is the CPU that computes.
    #[must_use]
    pub fn is_on_cpu(&self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// Whether all images stay on the device; otherwise they are copied again for every pass.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        match self {
            Self::Cpu => true,
            #[cfg(feature = "cuda")]
            Self::Cuda(engine) => engine.is_resident(),
        }
    }

    /// Denoises `queries`: with `w_kn` the softmax over images of `-|z - x_n|^2 / (2 sigma^2)` on window `k`,
    /// `D(z)(p) = sum over windows k at p of sum_n w_kn x_n(p), divided by the number of windows at p`.
    ///
    /// With `flips` every image also counts flipped left to right. The result is `[batch, channels, height, width]` in the
    /// units of the bank's images; its bits depend neither on the number of threads nor on the other queries of the batch.
    ///
    /// Errors: the components are for images of another size, a GPU holds another bank, or the result is not finite because
    /// the images were changed during the call.
    pub fn composite(
        &self,
        bank: &Bank<'_>,
        components: &Components,
        queries: &Queries<'_>,
        flips: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array4<f32>> {
        components.check_image(bank)?;
        let denoised = match self {
            Self::Cpu => cpu::composite(bank, components, queries, flips, monitor),
            #[cfg(feature = "cuda")]
            Self::Cuda(engine) => engine.composite(bank, components, queries, flips, monitor),
        }?;
        if denoised.iter().all(|value| value.is_finite()) { Ok(denoised) } else { Err(Error::NotFinite) }
    }

    /// Pass 1 alone: the posteriors over images on every window, of which anything else can be asked.
    ///
    /// Errors: those of [`Engine::composite`].
    pub fn evidence(
        &self,
        bank: &Bank<'_>,
        components: &Components,
        queries: &Queries<'_>,
        flips: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Posteriors> {
        components.check_image(bank)?;
        match self {
            Self::Cpu => Posteriors::on_cpu(bank, components, queries, flips, monitor),
            #[cfg(feature = "cuda")]
            Self::Cuda(engine) => Posteriors::on_gpu(engine, &Question { bank, components, queries, flips }, monitor),
        }
    }

    /// The composite, and the derivatives of it along `directions` `[direction, query, channel, row, column]` or those of the
    /// transposed Jacobian, see [`Posteriors::jvp`]. Queries are computed a few at a time, and nothing is kept.
    ///
    /// Errors: those of [`Engine::composite`] and of [`Posteriors::jvp`].
    #[allow(clippy::too_many_arguments, reason = "those of a composite, and the directions")]
    pub fn jvp(
        &self,
        bank: &Bank<'_>,
        components: &Components,
        queries: &Queries<'_>,
        flips: bool,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<(Array4<f32>, Array5<f32>)> {
        components.check_image(bank)?;
        match self {
            Self::Cpu => cpu::jvp(bank, components, queries, flips, directions, transposed, monitor),
            #[cfg(feature = "cuda")]
            Self::Cuda(engine) => {
                let question = Question { bank, components, queries, flips };
                let posteriors = Posteriors::on_gpu(engine, &question, &mut part_of_monitor(monitor, 0, 2))?;
                posteriors.composite_and_jvp(bank, directions, transposed, &mut part_of_monitor(monitor, 1, 2))
            }
        }
    }

    /// Denoises queries that lie on the GPU of this engine, see [`Engine::composite`], and leaves the results there.
    /// The work is queued on the stream of handle `stream` (0 for the default stream); a short call returns before it
    /// is done. z is not checked, as the call would have to wait for it: a query with numbers that are not finite, or
    /// too large, becomes NaN.
    ///
    /// Errors: the engine is on the CPU, or one of the errors of [`Engine::composite`].
    ///
    /// # Safety
    /// `queries` has addresses on this GPU, of `sigma.len()` images each; the stream belongs to this GPU; all of them stay
    /// alive until the queued work is done.
    #[cfg(feature = "cuda")]
    pub unsafe fn composite_on_device(
        &self,
        bank: &Bank<'_>,
        components: &Components,
        queries: crate::cuda::DeviceQueries<'_>,
        flips: bool,
        stream: usize,
        monitor: &mut Monitor<'_>,
    ) -> Result<()> {
        components.check_image(bank)?;
        check_sigma(queries.sigma, queries.sigma.len())?;
        let Self::Cuda(engine) = self else {
            return Err(Error::CudaUnavailable { reason: "the engine is on the CPU".to_owned() });
        };
        // SAFETY: the caller promises what this function requires.
        unsafe { engine.composite_on_device(bank, components, queries, flips, stream, monitor) }
    }
}
