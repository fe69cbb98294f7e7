import type { NvidiaFigures } from './nvidia-card.ts';

const MIB = 1024 * 1024;

/** In the words of `nvidia-smi --help-query-gpu`, which have been the same since driver 340. */
const FIELDS = [
  'index',
  'uuid',
  'memory.used',
  'utilization.gpu',
  'temperature.gpu',
  'power.draw',
  'power.limit',
  'ecc.errors.uncorrected.volatile.total',
];

/** What changes on every beat: much less work for the driver than everything that it could tell. */
export const FIGURES_QUERY = [`--query-gpu=${FIELDS.join(',')}`, '--format=csv,noheader,nounits'] as const;

export interface CardFigures {
  uuid: string;
  index: number;
  figures: NvidiaFigures;
}

/** Reads the answer to `FIGURES_QUERY`; a line that is no card is skipped, and so is a card that is lost. */
export function parseFigures(csv: string): CardFigures[] {
  const lines = csv.split('\n').map((line) => line.split(',').map((cell) => cell.trim()));
  return lines
    .filter((cells) => cells.length === FIELDS.length && cells[1]?.startsWith('GPU-') && isNumber(cells[2]))
    .map(([index, uuid = '', used, utilization, temperature, draw, limit, ecc]) => {
      const ratio = numberOf(utilization);
      const figures = {
        memoryUsedBytes: Math.round((numberOf(used) ?? 0) * MIB),
        utilizationRatio: ratio === undefined ? undefined : ratio / 100,
        temperatureCelsius: numberOf(temperature),
        powerWatts: numberOf(draw),
        powerLimitWatts: numberOf(limit),
        uncorrectedEccErrors: numberOf(ecc),
      };
      return { uuid, index: numberOf(index) ?? 0, figures };
    });
}

function isNumber(text: string | undefined): boolean {
  return numberOf(text) !== undefined;
}

/** What a card does not support reads `[N/A]` or `[Not Supported]`. */
function numberOf(text: string | undefined): number | undefined {
  const value = Number(text || Number.NaN);
  return Number.isFinite(value) ? value : undefined;
}
