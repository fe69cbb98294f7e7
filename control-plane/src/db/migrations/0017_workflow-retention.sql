CREATE TABLE "workflow_remains" (
	"run_id" uuid PRIMARY KEY NOT NULL,
	"tenant_id" uuid NOT NULL
);
--> statement-breakpoint
DROP INDEX "workflow_nodes_of_execution";--> statement-breakpoint
ALTER TABLE "workflow_runs" ADD COLUMN "stored_bytes" bigint DEFAULT 0 NOT NULL;