//! `Posteriors`: what pass 1 found for a batch of queries.

use numpy::{
    IntoPyArray, PyArray2, PyArray3, PyArray4, PyArray5, PyReadonlyArray2, PyReadonlyArray3, PyReadonlyArray4,
    PyReadonlyArray5,
};
use pyo3::prelude::*;

use super::bank::{Bank, check_aligned};
use super::calls::monitored;
use crate::filtered::FilteredPosteriors;
use crate::monitor::Monitor;
use crate::posteriors::Posteriors as CorePosteriors;

/// What pass 1 found, on windows or on the components of a filter.
pub(super) enum Found {
    Windows(CorePosteriors),
    Filter(FilteredPosteriors),
}

/// Calls the same method of either.
macro_rules! ask_either {
    ($found:expr, $method:ident($($arg:expr),*)) => {
        match $found {
            Found::Windows(found) => found.$method($($arg),*),
            Found::Filter(found) => found.$method($($arg),*),
        }
    };
}

/// What pass 1 found for a batch of queries with the same windows; made by `Engine.evidence`.
#[pyclass(frozen, module = "pspc_rs._core")]
pub(super) struct Posteriors {
    bank: Py<Bank>,
    found: Found,
}

/// Entropy, image, view and weight of the heaviest images.
type Statistics<'py> =
    (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray3<i64>>, Bound<'py, PyArray3<u32>>, Bound<'py, PyArray3<f64>>);

/// Of pixels and of the middle pixels of windows.
pub(super) type Variances<'py> = (Bound<'py, PyArray4<f64>>, Bound<'py, PyArray3<f64>>);

/// What the images of a rank add to composites and to derivatives, and what is left over.
type RankDerivatives<'py> = (Bound<'py, PyArray4<f64>>, Bound<'py, PyArray5<f64>>, Bound<'py, PyArray4<f64>>);

#[pymethods]
impl Posteriors {
    /// The logarithm of the sum of weights, `[batch, windows]`.
    #[getter]
    fn log_evidence<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f64>> {
        ask_either!(&self.found, log_evidence()).clone().into_pyarray(py)
    }

    /// `(entropy, image, view, weight)`: the entropies `[batch, windows]`, and the `top` heaviest images `[batch, windows,
    /// top]`, -1 where there is none.
    #[pyo3(signature = (top, progress=None))]
    fn statistics<'py>(&self, py: Python<'py>, top: usize, progress: Option<Py<PyAny>>) -> PyResult<Statistics<'py>> {
        let found = self.ask(py, progress, |bank, monitor| ask_either!(&self.found, statistics(bank, top, monitor)))?;
        Ok((
            found.entropy.into_pyarray(py),
            found.image.into_pyarray(py),
            found.view.into_pyarray(py),
            found.weight.into_pyarray(py),
        ))
    }

    /// The sum of the weights of every image over the windows, `[batch, n]`.
    #[pyo3(signature = (progress=None))]
    fn attribution<'py>(&self, py: Python<'py>, progress: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        Ok(self
            .ask(py, progress, |bank, monitor| ask_either!(&self.found, attribution(bank, monitor)))?
            .into_pyarray(py))
    }

    /// The composite `[batch, channels, height, width]`.
    #[pyo3(signature = (progress=None))]
    fn composite<'py>(&self, py: Python<'py>, progress: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyArray4<f32>>> {
        Ok(self.ask(py, progress, |bank, monitor| ask_either!(&self.found, composite(bank, monitor)))?.into_pyarray(py))
    }

    /// The posterior variances: `[batch, channels, height, width]`, and of the middle pixels of windows `[batch, windows,
    /// channels]`.
    #[pyo3(signature = (progress=None))]
    fn variance<'py>(&self, py: Python<'py>, progress: Option<Py<PyAny>>) -> PyResult<Variances<'py>> {
        let (pixels, middles) =
            self.ask(py, progress, |bank, monitor| ask_either!(&self.found, variance(bank, monitor)))?;
        Ok((pixels.into_pyarray(py), middles.into_pyarray(py)))
    }

    /// The derivatives along `v` `[directions, batch, channels, height, width]`, or those of the transposed Jacobian.
    #[pyo3(signature = (v, transposed, progress=None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn jvp<'py>(
        &self,
        py: Python<'py>,
        v: PyReadonlyArray5<'py, f64>,
        transposed: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray5<f32>>> {
        check_aligned(v.as_any())?;
        let v = v.as_array();
        Ok(self
            .ask(py, progress, |bank, monitor| ask_either!(&self.found, jvp(bank, v, transposed, monitor)))?
            .into_pyarray(py))
    }

    /// The posteriors over the images of one of several ranks, of all of whose weights these have shares with the logarithms
    /// `log_shares` `[batch, windows]`.
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn shared(&self, py: Python<'_>, log_shares: PyReadonlyArray2<'_, f64>) -> PyResult<Self> {
        check_aligned(log_shares.as_any())?;
        let shares = log_shares.as_array();
        let found = match &self.found {
            Found::Windows(found) => Found::Windows(found.shared(shares)?),
            Found::Filter(found) => Found::Filter(found.shared(shares)?),
        };
        Ok(Self::new(self.bank.clone_ref(py), found))
    }

    /// What the images of the rank add to the composites `[batch, channels, height, width]`, see `shared`.
    #[pyo3(signature = (log_shares, progress=None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn contribution<'py>(
        &self,
        py: Python<'py>,
        log_shares: PyReadonlyArray2<'py, f64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray4<f64>>> {
        check_aligned(log_shares.as_any())?;
        let shares = log_shares.as_array();
        Ok(self
            .ask(py, progress, |bank, monitor| ask_either!(&self.found, contribution(bank, shares, monitor)))?
            .into_pyarray(py))
    }

    /// The means under these posteriors, of one of several ranks, of the inner products of images less z with directions,
    /// `[directions, batch, windows]`.
    #[pyo3(signature = (v, transposed, progress=None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn mean_products<'py>(
        &self,
        py: Python<'py>,
        v: PyReadonlyArray5<'py, f64>,
        transposed: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray3<f64>>> {
        check_aligned(v.as_any())?;
        let v = v.as_array();
        Ok(self
            .ask(py, progress, |bank, monitor| ask_either!(&self.found, mean_products(bank, v, transposed, monitor)))?
            .into_pyarray(py))
    }

    /// `(composite, along, residuals)`: what the images of the rank add to composites and derivatives, and what rounding leaves over,
    /// given its shares and the mean products of all ranks.
    #[pyo3(signature = (log_shares, v, transposed, means, progress=None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn rank_derivatives<'py>(
        &self,
        py: Python<'py>,
        log_shares: PyReadonlyArray2<'py, f64>,
        v: PyReadonlyArray5<'py, f64>,
        transposed: bool,
        means: PyReadonlyArray3<'py, f64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<RankDerivatives<'py>> {
        for array in [log_shares.as_any(), v.as_any(), means.as_any()] {
            check_aligned(array)?;
        }
        let (shares, v, means) = (log_shares.as_array(), v.as_array(), means.as_array());
        let found = self.ask(py, progress, |bank, monitor| {
            ask_either!(&self.found, rank_derivatives(bank, shares, v, transposed, means, monitor))
        })?;
        Ok((found.composite.into_pyarray(py), found.along.into_pyarray(py), found.residuals.into_pyarray(py)))
    }

    /// Moments `[batch, numbers]` of differences from the `denoised` images of all ranks, as the images of one add to them.
    #[pyo3(signature = (log_shares, denoised, progress=None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over")]
    fn rank_moments<'py>(
        &self,
        py: Python<'py>,
        log_shares: PyReadonlyArray2<'py, f64>,
        denoised: PyReadonlyArray4<'py, f64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        check_aligned(log_shares.as_any())?;
        check_aligned(denoised.as_any())?;
        let (shares, denoised) = (log_shares.as_array(), denoised.as_array());
        Ok(self
            .ask(py, progress, |bank, monitor| ask_either!(&self.found, rank_moments(bank, shares, denoised, monitor)))?
            .into_pyarray(py))
    }

    fn __repr__(&self) -> String {
        let (queries, windows) = ask_either!(&self.found, log_evidence()).dim();
        format!("<Posteriors of {queries} queries on {windows} windows>")
    }
}

impl Posteriors {
    pub(super) fn new(bank: Py<Bank>, found: Found) -> Self {
        Self { bank, found }
    }

    /// Runs `work` on the bank without the GIL.
    fn ask<R: Send>(
        &self,
        py: Python<'_>,
        progress: Option<Py<PyAny>>,
        work: impl FnOnce(&crate::Bank<'_>, &mut Monitor<'_>) -> crate::Result<R> + Send,
    ) -> PyResult<R> {
        let pixels = self.bank.get().borrow(py)?;
        let bank = self.bank.get().view(&pixels)?;
        monitored(py, progress, |monitor| work(&bank, monitor))
    }
}
