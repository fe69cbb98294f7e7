import { acknowledgementLost } from './acknowledgement-lost.ts';
import { agentKill } from './agent-kill.ts';
import { agentPause } from './agent-pause.ts';
import { agentUpgrade } from './agent-upgrade.ts';
import { allAgentsGone } from './all-agents-gone.ts';
import { childKill } from './child-kill.ts';
import { clockOfAgent, clockOfReplica } from './clock.ts';
import { databaseReset, databaseStalled } from './database-connection.ts';
import { diskFull } from './disk-full.ts';
import { dockerKill } from './docker-kill.ts';
import { drain } from './drain.ts';
import { failpointOfAgent, failpointOfReplica } from './failpoints.ts';
import type { Fault } from './fault.ts';
import { connectionReset, framesDelayed, framesDuplicated, framesReordered } from './frames.ts';
import { launcherKill } from './launcher-kill.ts';
import { partitionFlapping, partitionLong, partitionOneWay, partitionShort } from './partition.ts';
import { postgresKill } from './postgres-kill.ts';
import { replicaKill } from './replica-kill.ts';
import { replicaPause } from './replica-pause.ts';
import { rollingRestart } from './rolling-restart.ts';
import { zygoteKill } from './zygote-kill.ts';

/** Every fault by the name that `--fault` takes. */
export const FAULTS: Readonly<Record<string, Fault>> = {
  'acknowledgement-lost': acknowledgementLost,
  'agent-kill': agentKill,
  'agent-pause': agentPause,
  'agent-upgrade': agentUpgrade,
  'all-agents-gone': allAgentsGone,
  'child-kill': childKill,
  'clock-agent': clockOfAgent,
  'clock-replica': clockOfReplica,
  'connection-reset': connectionReset,
  'database-reset': databaseReset,
  'database-stalled': databaseStalled,
  'disk-full': diskFull,
  'docker-kill': dockerKill,
  drain,
  'failpoint-agent': failpointOfAgent,
  'failpoint-replica': failpointOfReplica,
  'frames-delayed': framesDelayed,
  'frames-duplicated': framesDuplicated,
  'frames-reordered': framesReordered,
  'launcher-kill': launcherKill,
  'partition-flapping': partitionFlapping,
  'partition-long': partitionLong,
  'partition-one-way': partitionOneWay,
  'partition-short': partitionShort,
  'postgres-kill': postgresKill,
  'replica-kill': replicaKill,
  'replica-pause': replicaPause,
  'rolling-restart': rollingRestart,
  'zygote-kill': zygoteKill,
};
