//! `Engine`: the one entry, with the GIL released, signals checked and progress reported.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray4, PyArray5, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray4, PyReadonlyArray5};
use pyo3::prelude::*;

use super::bank::{Bank, check_aligned};
use super::calls::monitored;
use super::components::Components;
use super::filter::Filter;
use super::posteriors::{Found, Posteriors, Variances};
use super::rank_evidence::RankEvidence;
use crate::atoms::Atoms;
use crate::engine::Engine as CoreEngine;
use crate::filtered::FilteredPosteriors;
use crate::monitor::Monitor;
use crate::posteriors::Posteriors as CorePosteriors;
use crate::query::{NoisyImages, Queries};
use crate::rank_evidence::RankEvidence as CoreRankEvidence;

/// Noisy images in either precision; float64 is rounded only once, after conversion to the units of stored pixels.
#[derive(FromPyObject)]
enum NoisyArray<'py> {
    #[pyo3(transparent)]
    F32(PyReadonlyArray4<'py, f32>),
    #[pyo3(transparent)]
    F64(PyReadonlyArray4<'py, f64>),
}

impl NoisyArray<'_> {
    fn check_aligned(&self) -> PyResult<()> {
        match self {
            Self::F32(z) => check_aligned(z.as_any()),
            Self::F64(z) => check_aligned(z.as_any()),
        }
    }

    fn view(&self) -> NoisyImages<'_> {
        match self {
            Self::F32(z) => z.as_array().into(),
            Self::F64(z) => z.as_array().into(),
        }
    }
}

/// What queries are compared on.
#[derive(FromPyObject)]
enum Windows {
    #[pyo3(transparent)]
    Components(Py<Components>),
    #[pyo3(transparent)]
    Filter(Py<Filter>),
}

/// The composite and derivatives of it.
type Derivatives<'py> = (Bound<'py, PyArray4<f32>>, Bound<'py, PyArray5<f32>>);

/// The images of a `Bank` on the CPU or, with the number of a GPU as `device`, on that GPU; kernels compiled for it are
/// kept in the folder `cache`.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct Engine {
    bank: Py<Bank>,
    core: CoreEngine,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (bank, device=None, cache=None))]
    fn new(py: Python<'_>, bank: Py<Bank>, device: Option<usize>, cache: Option<PathBuf>) -> PyResult<Self> {
        let core = match device {
            None => CoreEngine::Cpu,
            Some(device) => {
                let images = bank.get().borrow(py)?;
                let view = bank.get().view(&images)?;
                py.detach(|| CoreEngine::cuda(&view, device, cache))?
            }
        };
        Ok(Self { bank, core })
    }

    /// Whether all images stay on the device.
    #[getter]
    fn resident(&self) -> bool {
        self.core.is_resident()
    }

    /// Denoises `z` `[batch, channels, height, width]` at one sigma per query; `progress(done, total)` is called about ten
    /// times per second.
    #[pyo3(signature = (components, z, sigma, flips, progress=None, images=None, left_out=None))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn composite<'py>(
        &self,
        py: Python<'py>,
        components: Windows,
        z: NoisyArray<'py>,
        sigma: Vec<f64>,
        flips: bool,
        progress: Option<Py<PyAny>>,
        images: Option<Indices<'_>>,
        left_out: Option<Vec<Indices<'_>>>,
    ) -> PyResult<Bound<'py, PyArray4<f32>>> {
        let denoised =
            self.ask(py, &z, &sigma, (images, left_out), progress, |bank, queries, monitor| match &components {
                Windows::Components(windows) => {
                    self.core.composite(bank, &windows.get().engine, queries, flips, monitor)
                }
                Windows::Filter(filter) => {
                    self.on_the_cpu()?;
                    FilteredPosteriors::denoise(bank, &filter.get().core, queries, monitor)
                }
            })?;
        Ok(denoised.into_pyarray(py))
    }

    /// What pass 1 finds for `z` `[batch, channels, height, width]`, with the arguments of `composite`.
    #[pyo3(signature = (components, z, sigma, flips, progress=None, images=None, left_out=None))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn evidence(
        &self,
        py: Python<'_>,
        components: Windows,
        z: NoisyArray<'_>,
        sigma: Vec<f64>,
        flips: bool,
        progress: Option<Py<PyAny>>,
        images: Option<Indices<'_>>,
        left_out: Option<Vec<Indices<'_>>>,
    ) -> PyResult<Posteriors> {
        let found =
            self.ask(py, &z, &sigma, (images, left_out), progress, |bank, queries, monitor| match &components {
                Windows::Components(windows) => {
                    self.core.evidence(bank, &windows.get().engine, queries, flips, monitor).map(Found::Windows)
                }
                Windows::Filter(filter) => {
                    self.on_the_cpu()?;
                    FilteredPosteriors::new(bank, &filter.get().core, queries, monitor).map(Found::Filter)
                }
            })?;
        Ok(Posteriors::new(self.bank.clone_ref(py), found))
    }

    /// What pass 1 finds on the images as one of several ranks, with the arguments of `composite`.
    #[pyo3(signature = (components, z, sigma, flips, progress=None, images=None, left_out=None))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn rank_evidence(
        &self,
        py: Python<'_>,
        components: Windows,
        z: NoisyArray<'_>,
        sigma: Vec<f64>,
        flips: bool,
        progress: Option<Py<PyAny>>,
        images: Option<Indices<'_>>,
        left_out: Option<Vec<Indices<'_>>>,
    ) -> PyResult<RankEvidence> {
        let found =
            self.ask(py, &z, &sigma, (images, left_out), progress, |bank, queries, monitor| match &components {
                Windows::Components(windows) => {
                    CoreRankEvidence::on_windows(&self.core, bank, &windows.get().engine, queries, flips, monitor)
                }
                Windows::Filter(filter) => {
                    self.on_the_cpu()?;
                    CoreRankEvidence::on_filter(bank, &filter.get().core, queries, monitor)
                }
            })?;
        Ok(RankEvidence::new(self.bank.clone_ref(py), found))
    }

    /// `(denoised, derivatives)` along `v` `[directions, batch, channels, height, width]`, or those of the transposed Jacobian;
    /// otherwise with the arguments of `composite`.
    #[pyo3(signature = (components, z, sigma, flips, v, transposed, progress=None, images=None, left_out=None))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn jvp<'py>(
        &self,
        py: Python<'py>,
        components: Windows,
        z: NoisyArray<'py>,
        sigma: Vec<f64>,
        flips: bool,
        v: PyReadonlyArray5<'py, f64>,
        transposed: bool,
        progress: Option<Py<PyAny>>,
        images: Option<Indices<'_>>,
        left_out: Option<Vec<Indices<'_>>>,
    ) -> PyResult<Derivatives<'py>> {
        check_aligned(v.as_any())?;
        let v = v.as_array();
        let (denoised, derivatives) =
            self.ask(py, &z, &sigma, (images, left_out), progress, |bank, queries, monitor| match &components {
                Windows::Components(windows) => {
                    self.core.jvp(bank, &windows.get().engine, queries, flips, v, transposed, monitor)
                }
                Windows::Filter(filter) => {
                    self.on_the_cpu()?;
                    let filter = &filter.get().core;
                    FilteredPosteriors::denoise_and_derive(bank, filter, queries, v, transposed, monitor)
                }
            })?;
        Ok((denoised.into_pyarray(py), derivatives.into_pyarray(py)))
    }

    /// How many moments `Posteriors.rank_moments` finds for a query.
    fn num_moments(&self, py: Python<'_>, components: Windows) -> PyResult<usize> {
        let pixels = self.bank.get().borrow(py)?;
        Ok(match components {
            Windows::Components(windows) => {
                CorePosteriors::num_moments(&self.bank.get().view(&pixels)?, &windows.get().engine)
            }
            Windows::Filter(filter) => FilteredPosteriors::num_moments(&filter.get().core),
        })
    }

    /// What `Posteriors.variance` finds over the images of several ranks, whose moments `[batch, numbers]` sum up to these.
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn variance_of_moments<'py>(
        &self,
        py: Python<'py>,
        components: Windows,
        moments: PyReadonlyArray2<'py, f64>,
    ) -> PyResult<Variances<'py>> {
        check_aligned(moments.as_any())?;
        let moments = moments.as_array();
        let pixels = self.bank.get().borrow(py)?;
        let bank = self.bank.get().view(&pixels)?;
        let (pixels, middles) = monitored(py, None, |_| match &components {
            Windows::Components(windows) => CorePosteriors::variance_of_moments(&bank, &windows.get().engine, moments),
            Windows::Filter(filter) => FilteredPosteriors::variance_of_moments(&bank, &filter.get().core, moments),
        })?;
        Ok((pixels.into_pyarray(py), middles.into_pyarray(py)))
    }

    /// Denoises contiguous queries at address `z` of the GPU into `out`, on the stream of handle `stream`; `z_is_f64` and
    /// `out_is_f64` say which of the two hold float64 numbers instead of float32 ones. Otherwise with the arguments of
    /// `composite`.
    #[cfg(feature = "cuda")]
    #[pyo3(signature = (components, z, z_is_f64, sigma, flips, out, out_is_f64, stream, progress=None, images=None, left_out=None))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn composite_at(
        &self,
        py: Python<'_>,
        components: &Components,
        z: u64,
        z_is_f64: bool,
        sigma: Vec<f64>,
        flips: bool,
        out: u64,
        out_is_f64: bool,
        stream: usize,
        progress: Option<Py<PyAny>>,
        images: Option<Indices<'_>>,
        left_out: Option<Vec<Indices<'_>>>,
    ) -> PyResult<()> {
        let pixels = self.bank.get().borrow(py)?;
        let bank = self.bank.get().view(&pixels)?;
        let atoms = &atoms_of(&bank, sigma.len(), &(images, left_out))?;
        let queries = crate::cuda::DeviceQueries { z, z_is_f64, out, out_is_f64, sigma: &sigma, atoms };
        monitored(py, progress, |monitor| {
            // SAFETY: the package takes the addresses from torch tensors, which it holds, on this GPU and on torch's
            // current stream.
            unsafe { self.core.composite_on_device(&bank, &components.engine, queries, flips, stream, monitor) }
        })
    }

    fn __repr__(&self) -> String {
        format!("<Engine on {}>", self.core.device_name())
    }
}

impl Engine {
    /// An error unless the engine is on the CPU, where filters are computed.
    fn on_the_cpu(&self) -> crate::Result<()> {
        if self.core.is_on_cpu() {
            return Ok(());
        }
        Err(crate::Error::CudaUnavailable { reason: "filters are computed on the CPU only".to_owned() })
    }

    /// Runs `work` on the bank and the queries without the GIL.
    fn ask<R: Send>(
        &self,
        py: Python<'_>,
        z: &NoisyArray<'_>,
        sigma: &[f64],
        choice: Choice<'_>,
        progress: Option<Py<PyAny>>,
        work: impl FnOnce(&crate::Bank<'_>, &Queries<'_>, &mut Monitor<'_>) -> crate::Result<R> + Send,
    ) -> PyResult<R> {
        let pixels = self.bank.get().borrow(py)?;
        let bank = self.bank.get().view(&pixels)?;
        let atoms = atoms_of(&bank, sigma.len(), &choice)?;
        z.check_aligned()?;
        let z = z.view();
        monitored(py, progress, |monitor| work(&bank, &Queries::new(&bank, z, sigma)?.among(&atoms), monitor))
    }
}

/// Indices of images, in increasing order.
type Indices<'py> = PyReadonlyArray1<'py, u32>;

/// The images that count for all queries, and those left out for each.
type Choice<'py> = (Option<Indices<'py>>, Option<Vec<Indices<'py>>>);

/// The images that count for `queries` queries, see [`Atoms`].
fn atoms_of(bank: &crate::Bank<'_>, queries: usize, (images, left_out): &Choice<'_>) -> crate::Result<Atoms> {
    let copy = |indices: &Indices<'_>| indices.as_array().to_vec();
    Atoms::new(bank, queries, images.as_ref().map(copy), left_out.iter().flatten().map(copy).collect())
}
