//! `Batch`: some queries of a call in one regime, prepared on the device, and how their results are written.

use super::call::Call;
use super::candidates::DeviceCandidates;
use super::layout::{Address, Probes, kernel_args};
use super::memory::Memory;
use super::module::Grid;
use super::penalties::{LeftOut, Priors};
use super::queue::LaunchQueue;
use super::rounding::Rounding;
use super::sources::{KernelSource, Precision};
use crate::error::Result;
use crate::regime::{FAR_FROM, Regime, dense_cutoff_bits};

/// The mark of a query whose energies have to be float64; as in `kernels/common.cu`.
const IN_DOUBLE: u32 = 2;

/// Queries on the device, and what is known of them.
pub(super) struct Batch {
    pub(super) regime: Regime,
    pub(super) queries: usize,
    /// Number of probes.
    pub(super) probe_count: usize,
    /// The probes as kernels see them.
    pub(super) probes: Probes,
    /// Lists to fill, in the sparse regime.
    pub(super) candidates: Option<DeviceCandidates>,
    /// What is known of each query: whether z holds numbers that are not allowed, and whether float32 serves.
    marks: Memory,
    /// Indices of the queries in the call.
    rows: Memory,
    /// The images that do not count for some query.
    _left_out: Option<LeftOut>,
    /// The memory that `probes` refers to.
    _probe_memory: Vec<Memory>,
}

impl Batch {
    /// Bytes of device memory per query, whatever its windows are.
    pub(super) fn bytes_per_query(call: &Call<'_>, regime: Regime) -> usize {
        let sparse = if regime.sparse { DeviceCandidates::bytes_per_query(call) } else { 0 };
        call.mirrors() * call.bank.image_len() * 12 + LeftOut::bytes_per_query(call.bank.len()) + sparse
    }

    /// Prepares the queries in `rows` of the call.
    pub(super) fn new(
        call: &Call<'_>,
        queue: &mut LaunchQueue<'_, '_>,
        regime: Regime,
        rows: &[usize],
    ) -> Result<Self> {
        let stream = &queue.stream.clone();
        let bank = call.bank;
        let (queries, probe_count) = (rows.len(), rows.len() * call.mirrors());
        let values_len = probe_count * bank.image_len();
        let logit_scales: Vec<f64> =
            rows.iter().map(|&row| logit_scale(call.queries.sigma[row], bank.units().unit)).collect();
        let logit_scales = Memory::copy_of(stream, &logit_scales, "the noise levels")?;
        let left_out = LeftOut::new(call.queries.atoms, bank.len(), stream, rows)?;
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let rows = Memory::copy_of(stream, &rows, "the order of the queries")?;
        let values = Memory::new(stream, values_len * 4, "the queries")?;
        let exact = Memory::new(stream, values_len * 8, "the queries")?;
        let marks = Memory::zeros(stream, queries * 4, "marks of queries")?;
        let candidates = regime.sparse.then(|| DeviceCandidates::new(call, stream, queries)).transpose()?;
        let (rounding, far_from) = (rounding(call), FAR_FROM * bank.stored_max_abs());
        let probes = Probes {
            values: values.address(),
            exact: exact.address(),
            far_values: 0,
            logit_scales: logit_scales.address(),
            marks: marks.address(),
            candidate_counts: 0,
            below: call.priors.as_ref().map_or(0, Priors::address),
            left_out: left_out.as_ref().map_or(0, LeftOut::address),
            left_out_words: left_out.as_ref().map_or(0, |left_out| left_out.words) as i32,
            queries: queries as i32,
            mirrors: call.mirrors() as i32,
            expanded: i32::from(regime.is_expanded()),
            max_candidates: DeviceCandidates::limit(call) as i32,
            cutoff_bits: dense_cutoff_bits(bank.len()) as f32,
            float_bits: rounding.float_bits() as f32,
            far_from,
            error_bound: rounding.error_bound(far_from),
        };
        let probe_memory = vec![values, exact, logit_scales];
        let batch = Self {
            regime,
            queries,
            probe_count,
            probes,
            candidates,
            marks,
            rows,
            _left_out: left_out,
            _probe_memory: probe_memory,
        };
        batch.prepare_probes(call, queue)?;
        Ok(batch)
    }

    fn prepare_probes(&self, call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>) -> Result<()> {
        let Probes { values, exact, .. } = self.probes;
        let counts: Address = self.candidates.as_ref().map_or(0, |candidates| candidates.counts.address());
        let kernel = call.kernel(KernelSource::Posterior, "prepare_probes")?;
        let (len, width, units) = (call.bank.image_len() as i32, call.bank.width() as i32, call.bank.units());
        let (z, z_is_f64) = (call.queries.z, i32::from(call.queries.z_is_f64));
        let reach = call.bank.stored_max_abs();
        // In the direct form nothing cancels a prior.
        let per_reach = if self.regime.is_expanded() { rounding(call).hidden_per_reach(reach) } else { 0.0 };
        let args: &[_] = kernel_args![
            &z,
            &z_is_f64,
            self.rows.address_ref(),
            &len,
            &width,
            &units,
            &self.probes,
            &reach,
            &per_reach,
            &values,
            &exact,
            &counts,
        ];
        // SAFETY: z has the rows of all queries, by the promise of the call; the other arrays were allocated for them.
        unsafe { queue.launch(&kernel, Grid::over(self.queries * call.bank.image_len()), args) }
    }

    /// Whether the passes in float64 are to be queued. If they are a step each, they are, without waiting for what float32
    /// finds: with nothing to do they cost no more than their launch. Otherwise some query has to need them.
    pub(super) fn may_need_double(&self, call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>) -> Result<bool> {
        if call.steps(0..call.bank.shards(), self.probe_count, Precision::Double).len() == 1 {
            return Ok(true);
        }
        // Ctrl-C works while the queue is waited for; reading waits for the rest of its last step.
        queue.wait()?;
        let mut marks = vec![0; self.queries];
        self.marks.read(&mut marks, "marks of queries")?;
        Ok(marks.iter().any(|mark| mark & IN_DOUBLE != 0))
    }

    /// The probes for passes over all images, which skip queries whose candidates were weighed.
    pub(super) fn dense_probes(&self) -> Probes {
        let candidate_counts = self.candidates.as_ref().map_or(0, |candidates| candidates.counts.address());
        Probes { candidate_counts, ..self.probes }
    }

    /// Writes the denoised images, from the weighted sums of the shards' pixels, `[probe][shard][channel][pixel]`.
    pub(super) fn finish(&self, call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, shard_sums: &Memory) -> Result<()> {
        let bank = call.bank;
        let kernel = call.kernel(KernelSource::Posterior, "finish_queries")?;
        let probes = self.dense_probes();
        let candidate_sums: Address = self.candidates.as_ref().map_or(0, |candidates| candidates.pixel_sums.address());
        let (max_abs, shards, len) = (bank.stored_max_abs(), bank.shards() as i32, bank.image_len() as i32);
        let (plane, width, units) = (bank.plane() as i32, bank.width() as i32, bank.units());
        let (out, out_is_f64) = (call.queries.out, i32::from(call.queries.out_is_f64));
        let args: &[_] = kernel_args![
            &probes,
            shard_sums.address_ref(),
            &candidate_sums,
            &max_abs,
            call.components.cover.address_ref(),
            &shards,
            &len,
            &plane,
            &width,
            &units,
            self.rows.address_ref(),
            &out,
            &out_is_f64,
        ];
        // SAFETY: out has the rows of all queries, by the promise of the call; the other arrays were allocated for them.
        unsafe { queue.launch(&kernel, Grid::over(self.queries * bank.image_len()), args) }
    }
}

/// How the energies of a call round.
fn rounding(call: &Call<'_>) -> Rounding {
    let rounding = call.components.rounding;
    call.priors.as_ref().map_or(rounding, |priors| rounding.with_priors(priors.bits))
}

/// `log2(e) / (2 sigma^2)` in stored units: energies times this are base-2 logits, sign reversed.
pub(super) fn logit_scale(sigma: f64, unit: f64) -> f64 {
    std::f64::consts::LOG2_E / (2.0 * (sigma * unit).powi(2))
}

#[cfg(test)]
mod tests {
    use super::IN_DOUBLE;

    #[test]
    fn constants_are_those_of_the_kernels() {
        assert!(include_str!("kernels/common.cu").contains(&format!("#define IN_DOUBLE {IN_DOUBLE}u\n")));
    }
}
