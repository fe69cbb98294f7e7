import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import type { BusMessage } from '../replica/bus-message.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';
import type { AgentRequests } from './agent-requests.ts';
import type { ExecutionTracker } from './execution-tracker.ts';
import type { FollowedElsewhere } from './followed-elsewhere.ts';
import type { ModuleService } from './module-service.ts';
import type { MovedExecutions } from './moved-executions.ts';
import type { QuestionsElsewhere } from './questions-elsewhere.ts';
import type { RemoteWatchers } from './remote-watchers.ts';

/** An accepted execution may be claimed elsewhere before its commit is known here; by then it surely is. */
const CLAIM_KEPT_MS = 5_000;

export interface ReplicaMessagesOptions {
  registry: AgentRegistry;
  scheduler: Scheduler;
  tracker: ExecutionTracker;
  movedExecutions: MovedExecutions;
  elsewhere: FollowedElsewhere;
  remoteWatchers: RemoteWatchers;
  agentRequests: AgentRequests;
  questions: QuestionsElsewhere;
  modules: ModuleService;
  /** The agent has a newer link. */
  closeOlder: (agentId: string, session: number) => void;
  /** Number of the newest link of the agent to this replica, also while it is being admitted. */
  /** There is a word for a run of this replica. */
  workflowWord: (runId: string) => void;
  /** Schedules, or their times, are others. */
  schedulesChanged: () => void;
  newestSession: (agentId: string) => number | undefined;
  /** Others have come. */
  lookAtReplicas: () => void;
}

/** What other replicas tell, brought to those whom it concerns. */
export class ReplicaMessages {
  readonly #options: ReplicaMessagesOptions;
  readonly #claimed = new Set<string>();

  constructor(options: ReplicaMessagesOptions) {
    this.#options = options;
  }

  /** Whether another replica has claimed an execution that is not followed here. */
  isClaimedElsewhere(id: string): boolean {
    return this.#claimed.has(id);
  }

  handle(message: BusMessage, from: string): void {
    const { scheduler, tracker, registry, elsewhere, remoteWatchers, agentRequests, questions } = this.#options;
    const { newestSession } = this.#options;
    switch (message.type) {
      case 'here':
        this.#options.lookAtReplicas();
        break;
      case 'queued':
        scheduler.othersQueued();
        break;
      case 'claimed':
        for (const { id, attempt } of message.executions) this.#claimedElsewhere(id, attempt);
        break;
      case 'moved':
        this.#options.movedExecutions.look();
        elsewhere.moved(message.ids);
        break;
      case 'watch':
        remoteWatchers.watch(message.id, from, message.tell);
        break;
      case 'changed':
        elsewhere.changed(message);
        break;
      case 'cancel':
        if (tracker.get(message.id) !== undefined) agentRequests.look();
        break;
      case 'agentLinked':
        this.#options.closeOlder(message.id, message.session);
        // It may be on its way back here: then its attempts are being taken over by this replica.
        if (registry.get(message.id) === undefined && (newestSession(message.id) ?? 0) < message.session) {
          tracker.agentMoved(message.id);
        }
        break;
      case 'agentChanged':
        if (registry.get(message.id) !== undefined) agentRequests.look();
        break;
      case 'workflowWord':
        this.#options.workflowWord(message.id);
        break;
      case 'schedulesChanged':
        this.#options.schedulesChanged();
        break;
      case 'asked':
        questions.look();
        break;
      case 'answered':
        questions.answered(message.id);
        break;
      case 'withdrawn':
        questions.withdrawn(message.id);
        break;
      case 'modulesChanged':
        this.#options.modules.changedElsewhere(message.tenantId, message.name, message.versionId);
        break;
      default:
        // A newer replica may tell more than this one knows.
        message satisfies never;
    }
  }

  /** Something may not have been heard: everything that was told of is looked at. */
  missed(): void {
    this.#options.lookAtReplicas();
    this.#options.scheduler.othersQueued();
    this.#options.movedExecutions.look();
    this.#options.elsewhere.lookAgain();
    this.#options.agentRequests.look();
    this.#options.questions.look();
    this.#options.schedulesChanged();
  }

  #claimedElsewhere(id: string, attempt: number): void {
    const { tracker } = this.#options;
    const tracked = tracker.get(id);
    // An end that is about to be stored is told by whoever was told of it; one that the database refuses may never be.
    const isOver = tracked?.ending !== true || tracked.endRefused !== undefined;
    if (tracked !== undefined && tracked.current.attempt < attempt && isOver) tracker.release(tracked);
    if (tracked !== undefined) return;
    this.#claimed.add(id);
    setTimeout(() => this.#claimed.delete(id), CLAIM_KEPT_MS).unref();
  }
}
