//! `Batch`: some queries of a call that are summed in the same form, made ready on the device.

use super::arguments::{Address, Candidates, Probes, arguments};
use super::call::Call;
use super::device::Source;
use super::driver::{Grid, Kernel, Memory};
use super::pace::Pace;
use crate::error::Result;

/// How the energies of a query are summed, and whether few images carry weight: as on the CPU (`src/cpu/probe.rs`), where
/// the reasons are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) expanded: bool,
    pub(super) sparse: bool,
}

impl Form {
    /// Every form there is.
    pub(super) const ALL: [Self; 3] = [
        Self { expanded: true, sparse: false },
        Self { expanded: false, sparse: false },
        Self { expanded: false, sparse: true },
    ];

    /// The form of a noise level, against the largest magnitude of the data.
    pub(super) fn of(sigma: f64, reach: f64) -> Self {
        Self { expanded: sigma >= 0.5 * reach, sparse: sigma < 0.1 * reach }
    }
}

/// Queries on the device, and what becomes of them.
pub(super) struct Batch {
    pub(super) form: Form,
    pub(super) queries: usize,
    pub(super) views: usize,
    pub(super) probes: Probes,
    /// Weighted sums of the shards' pixels, `[probe][shard][channel][pixel]`.
    pub(super) partial: Memory,
    pub(super) lists: Option<Lists>,
    bad: Memory,
    rows: Memory,
    _values: Memory,
    _exact: Option<Memory>,
    _rates: Memory,
}

/// The candidates of a batch at small sigma, and what is summed over them.
pub(super) struct Lists {
    windows: Memory,
    images: Memory,
    energies: Memory,
    counts: Memory,
    /// Bits of the least energy of every window.
    pub(super) best: Memory,
    /// Sums of weights of every window, in fixed point.
    pub(super) sums: Memory,
    /// Weighted sums of pixels, in fixed point.
    pub(super) fixed: Memory,
}

impl Lists {
    /// The list as kernels see it.
    pub(super) fn arguments(&self) -> Candidates {
        Candidates {
            windows: self.windows.address(),
            images: self.images.address(),
            energies: self.energies.address(),
            counts: self.counts.address(),
        }
    }
}

impl Batch {
    /// Most candidates listed for a query: more would cost more than the dense passes.
    pub(super) fn limit(call: &Call<'_>) -> usize {
        let all = call.device_bank.len().saturating_mul(call.views() * call.windows.count);
        ((1 << 24) / call.windows.pixels).clamp(1 << 10, 1 << 18).min(all)
    }

    /// Bytes of device memory a query needs whatever its windows are.
    pub(super) fn bytes_per_query(call: &Call<'_>, form: Form) -> usize {
        let (len, views) = (call.device_bank.image_len(), call.views());
        let lists = Self::limit(call) * 16 + call.windows.count * 16 + len * 8;
        let partial = views * call.device_bank.shards() * len * 4;
        partial + views * len * 4 + if form.sparse { views * len * 8 + lists } else { 0 }
    }

    /// Makes the probes of the queries in `rows`.
    pub(super) fn new(call: &Call<'_>, pace: &mut Pace<'_, '_>, form: Form, rows: &[usize]) -> Result<Self> {
        let stream = &pace.stream.clone();
        let bank = call.device_bank;
        let (len, views, queries) = (bank.image_len(), call.views(), rows.len());
        let units = bank.units();
        let rate = |&row: &usize| std::f64::consts::LOG2_E / (2.0 * (call.sigma[row] * units.unit).powi(2));
        let rates = Memory::copy_of(stream, &rows.iter().map(rate).collect::<Vec<f64>>(), "the noise levels")?;
        let indices: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let rows = Memory::copy_of(stream, &indices, "the order of the queries")?;
        let values = Memory::new(stream, views * queries * len * 4, "the queries")?;
        let exact = form.sparse.then(|| Memory::new(stream, views * queries * len * 8, "the queries")).transpose()?;
        let bad = Memory::zeros(stream, queries * 4, "marks of queries")?;
        let partial = Memory::new(stream, views * queries * bank.shards() * len * 4, "sums of pixels")?;
        let limit = Self::limit(call);
        let lists = form.sparse.then(|| Self::lists(call, pace, queries, limit)).transpose()?;
        let probes = Probes {
            values: values.address(),
            exact: exact.as_ref().map_or(0, Memory::address),
            rates: rates.address(),
            few: 0,
            queries: queries as i32,
            views: views as i32,
            expanded: i32::from(form.expanded),
            limit: limit as i32,
            cutoff: (20.0 + (2.0 * bank.len() as f64).log2()) as f32,
        };
        let kernel = call.kernel(Source::Posterior, "prepare")?;
        let (count, view_count, image_len, width) = (queries as i32, views as i32, len as i32, bank.shape[3] as i32);
        let (z, wide, expanded) = (call.queries.z, i32::from(call.queries.z_wide), probes.expanded);
        let arguments: &[_] = arguments![
            &z,
            &wide,
            rows.at(),
            &count,
            &view_count,
            &image_len,
            &width,
            &units,
            &expanded,
            &probes.values,
            &probes.exact,
            bad.at(),
        ];
        // SAFETY: (1) z has the rows of all queries, by the promise of the call; the other arrays were just made so large.
        unsafe { pace.launch(&kernel, Grid::over(queries * len), arguments)? };
        Ok(Self {
            form,
            queries,
            views,
            probes,
            partial,
            lists,
            bad,
            rows,
            _values: values,
            _exact: exact,
            _rates: rates,
        })
    }

    fn lists(call: &Call<'_>, pace: &Pace<'_, '_>, queries: usize, limit: usize) -> Result<Lists> {
        let stream = &pace.stream;
        let (entries, windows) = (queries * limit, queries * call.windows.count);
        let best = Memory::new(stream, windows * 8, "least energies")?;
        best.fill(0xff, "least energies")?;
        Ok(Lists {
            windows: Memory::new(stream, entries * 4, "lists of candidates")?,
            images: Memory::new(stream, entries * 4, "lists of candidates")?,
            energies: Memory::new(stream, entries * 8, "lists of candidates")?,
            counts: Memory::zeros(stream, queries * 4, "lists of candidates")?,
            best,
            sums: Memory::zeros(stream, windows * 8, "sums of weights")?,
            fixed: Memory::zeros(stream, queries * call.device_bank.image_len() * 8, "sums of pixels")?,
        })
    }

    /// Number of probes.
    pub(super) fn probe_count(&self) -> usize {
        self.queries * self.views
    }

    /// The probes for passes over all images, which leave out queries that are done by lists.
    pub(super) fn dense_probes(&self) -> Probes {
        Probes { few: self.lists.as_ref().map_or(0, |lists| lists.counts.address()), ..self.probes }
    }

    /// Writes the denoised images.
    pub(super) fn finish(&self, call: &Call<'_>, pace: &mut Pace<'_, '_>) -> Result<()> {
        let bank = call.device_bank;
        let kernel = call.kernel(Source::Posterior, "finish")?;
        let probes = self.dense_probes();
        let fixed: Address = self.lists.as_ref().map_or(0, |lists| lists.fixed.address());
        let (reach, shards, len) = (bank.stored_reach(), bank.shards() as i32, bank.image_len() as i32);
        let (plane, width, units) = (bank.plane() as i32, bank.shape[3] as i32, bank.units());
        let (out, wide) = (call.queries.out, i32::from(call.queries.out_wide));
        let arguments: &[_] = arguments![
            &probes,
            self.partial.at(),
            &fixed,
            &reach,
            call.windows.cover().at(),
            self.bad.at(),
            &shards,
            &len,
            &plane,
            &width,
            &units,
            self.rows.at(),
            &out,
            &wide,
        ];
        // SAFETY: (2) out has the rows of all queries, by the promise of the call; the other arrays were made so large.
        unsafe { pace.launch(&kernel, Grid::over(self.queries * bank.image_len()), arguments) }
    }

    /// Weighs the listed candidates in float64.
    pub(super) fn weigh_candidates(&self, call: &Call<'_>, pace: &mut Pace<'_, '_>) -> Result<()> {
        let Some(lists) = &self.lists else { return Ok(()) };
        let list = lists.arguments();
        let blocks = Self::limit(call).div_ceil(256).clamp(1, 64) as u32;
        let grid = Grid { blocks: [blocks, self.queries as u32, 1], threads: 128, shared: 0 };
        let (shapes, count) = (call.windows.shapes, call.windows.count as i32);
        let (best, sums) = (lists.best.address(), lists.sums.address());
        let bank = call.device_bank;
        let steps = bank.steps(0..bank.shards(), bank.len());
        let kernel = |name: &str| -> Result<Kernel> { call.kernel(Source::Candidates, name) };
        let (energies, total, composites) =
            (kernel("candidate_energies")?, kernel("candidate_sums")?, kernel("candidate_composites")?);
        for step in &steps {
            let tile = bank.on_device(call.bank, &pace.stream, step)?;
            let arguments: &[_] = arguments![&tile.images, &self.probes, &shapes, &list, &count, &best];
            // SAFETY: (3) the lists have room for `limit` candidates a query, and a scan wrote numbers of windows and images.
            unsafe { pace.launch(&energies, grid, arguments)? };
        }
        let tile = bank.on_device(call.bank, &pace.stream, &steps[0])?;
        let arguments: &[_] = arguments![&tile.images, &self.probes, &shapes, &list, &count, &best, &sums];
        // SAFETY: (4) as above; there is a sum for every query and window.
        unsafe { pace.launch(&total, grid, arguments)? };
        drop(tile);
        let (reach, fixed) = (bank.stored_reach(), lists.fixed.address());
        for step in &steps {
            let tile = bank.on_device(call.bank, &pace.stream, step)?;
            let arguments: &[_] =
                arguments![&tile.images, &self.probes, &shapes, &list, &count, &best, &sums, &reach, &fixed];
            // SAFETY: (5) as above; there is a sum for every pixel of a query.
            unsafe { pace.launch(&composites, grid, arguments)? };
            pace.step((tile.images.count as usize * self.probe_count()) as u64)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use crate::cpu::probe::Probe;
    use ndarray::Array4;

    #[test]
    fn forms_are_those_of_the_cpu() {
        let images = Array4::<u8>::zeros((1, 1, 1, 1));
        let bank = Bank::from_u8(images.view()).unwrap();
        let windows = crate::windows::Windows::full(1, 1).unwrap();
        let z = ndarray::Array3::<f64>::zeros((1, 1, 1));
        for sigma in [1e-6, 0.099, 0.1, 0.11, 0.499, 0.5, 0.51, 80.0] {
            let probe = Probe::new(&bank, &windows, z.view(), sigma, 0, false);
            let form = Form { expanded: probe.expanded, sparse: probe.sparse };
            assert_eq!(Form::of(sigma, bank.reach()), form);
            assert!(Form::ALL.contains(&form));
        }
    }
}
