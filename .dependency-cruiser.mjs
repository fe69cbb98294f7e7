// The import table of ARCHITECTURE.md. Each folder may import itself, what is listed for it, and packages.

const CONTROL_PLANE = {
  api: ['service'],
  service: ['workflow', 'schedule', 'scheduler', 'agent-link', 'replica', 'admission', 'auth', 'db'],
  scheduler: ['agent-link', 'db'],
  'agent-link': ['replica', 'auth', 'db'],
  replica: ['db'],
  admission: ['db'],
  events: ['db'],
  retention: ['db'],
  workflow: ['db'],
  schedule: ['db'],
  auth: ['db'],
  metrics: [],
  db: [],
};

const AGENT = {
  job: ['executor', 'environment', 'gpu', 'launcher'],
  executor: ['environment', 'docker', 'slurm', 'launcher', 'lease'],
  environment: ['docker', 'launcher', 'tasks'],
  docker: ['tasks'],
  services: ['docker'],
  slurm: ['launcher', 'hardware'],
  gpu: ['executor', 'hardware'],
  tasks: [],
  launcher: [],
  lease: [],
  link: [],
  hardware: [],
  identity: [],
  log: [],
  metrics: ['job'],
  systemd: [],
};

/** Tests may build whatever they test. */
const TESTS = '\\.test\\.ts$|/test-support/';

/** A rule for a folder of a process: everything of that process that is not allowed is forbidden. */
const folderRules = (process, table) =>
  Object.entries(table).map(([folder, allowed]) => ({
    name: `${process}-${folder}`,
    comment: `${process}/src/${folder} imports only: ${[folder, ...allowed].join(', ')}`,
    severity: 'error',
    from: { path: `^${process}/src/${folder}/`, pathNot: TESTS },
    to: { path: `^${process}/src/`, pathNot: `^${process}/src/(${[folder, ...allowed].join('|')})/` },
  }));

export default {
  forbidden: [
    {
      name: 'no-cycles',
      comment: 'A cycle has no first file to read.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'processes-apart',
      comment: 'The processes share only what is in shared/.',
      severity: 'error',
      from: { path: '^(control-plane|agent|cli)/' },
      to: { path: '^(control-plane|agent|cli)/', pathNot: '^$1/' },
    },
    {
      name: 'shared-is-the-bottom',
      comment: 'shared/ imports no process.',
      severity: 'error',
      from: { path: '^shared/' },
      to: { path: '^(control-plane|agent|cli)/' },
    },
    {
      name: 'only-main-imports-app',
      comment: 'app.ts is the composition root; nothing but main.ts and tests builds it.',
      severity: 'error',
      from: { path: '^(control-plane|agent)/src/', pathNot: ['^(control-plane|agent)/src/main\\.ts$', TESTS] },
      to: { path: '^(control-plane|agent)/src/app\\.ts$' },
    },
    {
      name: 'faults-from-outside',
      comment: 'What breaks the processes, and judges them, uses nothing of them but the connection to the database.',
      severity: 'error',
      from: { path: '^faults/' },
      to: { path: '^(control-plane|agent|cli)/', pathNot: '^control-plane/src/db/(connection|sql)\\.ts$' },
    },
    {
      name: 'no-unresolved',
      comment: 'Every import exists.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    ...folderRules('control-plane', CONTROL_PLANE),
    ...folderRules('agent', AGENT),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)node_modules/|^shared/src/gen/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
    parser: 'swc',
  },
};
