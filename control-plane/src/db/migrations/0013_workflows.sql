CREATE TABLE "workflow_inbox" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "workflow_inbox_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"tenant_id" uuid NOT NULL,
	"run_id" uuid NOT NULL,
	"event" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "workflow_log" (
	"tenant_id" uuid NOT NULL,
	"run_id" uuid NOT NULL,
	"sequence" bigint NOT NULL,
	"time" timestamp with time zone NOT NULL,
	"level" smallint NOT NULL,
	"path" text NOT NULL,
	"message" text NOT NULL,
	CONSTRAINT "workflow_log_run_id_sequence_pk" PRIMARY KEY("run_id","sequence")
);
--> statement-breakpoint
CREATE TABLE "workflow_nodes" (
	"tenant_id" uuid NOT NULL,
	"run_id" uuid NOT NULL,
	"path" text NOT NULL,
	"instance" jsonb NOT NULL,
	"input_json" text,
	"output_json" text,
	"execution_id" uuid,
	"revision" integer NOT NULL,
	CONSTRAINT "workflow_nodes_run_id_path_pk" PRIMARY KEY("run_id","path")
);
--> statement-breakpoint
CREATE TABLE "workflow_runs" (
	"id" uuid NOT NULL,
	"tenant_id" uuid NOT NULL,
	"workflow_id" uuid NOT NULL,
	"workflow" text NOT NULL,
	"version" text NOT NULL,
	"pinned" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"state" smallint NOT NULL,
	"input_json" text NOT NULL,
	"output_json" text,
	"root" jsonb,
	"next_turn" integer DEFAULT 1 NOT NULL,
	"revision" integer DEFAULT 0 NOT NULL,
	"log_sequence" bigint DEFAULT 0 NOT NULL,
	"labels" jsonb,
	"idempotency_key" text,
	"replica_id" uuid,
	"wake_time" timestamp with time zone,
	"create_time" timestamp with time zone DEFAULT now() NOT NULL,
	"start_time" timestamp with time zone,
	"end_time" timestamp with time zone,
	CONSTRAINT "workflow_runs_tenant_id_id_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "workflows" (
	"id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL,
	"name" text NOT NULL,
	"version" text NOT NULL,
	"tags" text[] NOT NULL,
	"digest" text NOT NULL,
	"definition" "bytea" NOT NULL,
	"latest" boolean NOT NULL,
	"create_time" timestamp with time zone DEFAULT now() NOT NULL,
	"delete_time" timestamp with time zone
);
--> statement-breakpoint
CREATE INDEX "workflow_inbox_of_run" ON "workflow_inbox" USING btree ("run_id");--> statement-breakpoint
CREATE UNIQUE INDEX "workflow_runs_idempotency" ON "workflow_runs" USING btree ("tenant_id","idempotency_key") WHERE idempotency_key IS NOT NULL;--> statement-breakpoint
CREATE INDEX "workflow_runs_of_replica" ON "workflow_runs" USING btree ("replica_id") WHERE replica_id IS NOT NULL AND end_time IS NULL;--> statement-breakpoint
CREATE INDEX "workflow_runs_asleep" ON "workflow_runs" USING btree ("wake_time") WHERE replica_id IS NULL AND end_time IS NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "workflows_by_version" ON "workflows" USING btree ("tenant_id","name","version") WHERE delete_time IS NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "workflows_latest" ON "workflows" USING btree ("tenant_id","name") WHERE delete_time IS NULL AND latest;