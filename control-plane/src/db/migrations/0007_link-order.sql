ALTER TABLE "agents" ADD COLUMN "stopping" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "dial" bigint DEFAULT 0 NOT NULL;