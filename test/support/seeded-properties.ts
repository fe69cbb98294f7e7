import fc from 'fast-check';

/** What was green is green again: a seed that finds something new is looked for on purpose, not met by who changed something else. */
const SEED = 20_261_122;

const given = process.env['HARRIER_TEST_SEED'];
if (given !== 'random') fc.configureGlobal({ seed: given === undefined ? SEED : Number(given) });
